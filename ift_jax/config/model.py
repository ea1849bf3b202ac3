"""Config section `model` of a decoder: the architecture and its shape."""

import dataclasses

from ift_jax.config.decoder_layers import DecoderLayers
from ift_jax.config.fields import field
from ift_jax.config.model_help import (
    ATTENTION,
    ATTENTIONS,
    D_FF,
    D_MODEL,
    DROPOUT,
    DTYPE,
    DTYPES,
    HEAD_DIM,
    INIT_FROM,
    N_HEADS,
    NORM_EPS,
    REMAT,
    REMAT_POLICIES,
    TIED_EMBEDDING,
    VOCAB_SIZE,
)


@dataclasses.dataclass(frozen=True)
class DecoderConfig(DecoderLayers):
    """A decoder-only transformer. The defaults are a small model of Llama's kind."""

    architecture: str = field(
        "decoder", "The architecture; default_config() sets it.", choices=("decoder",)
    )
    init_from: str = field("", INIT_FROM)
    vocab_size: int = field(0, VOCAB_SIZE, minimum=0)
    max_length: int = field(
        0, "Number of positions that the model was made for; 0: no limit.", minimum=0
    )
    d_model: int = field(192, D_MODEL, above=0)
    n_layers: int = field(4, "Number of layers.", above=0)
    n_heads: int = field(6, N_HEADS, above=0)
    n_kv_heads: int = field(2, "Number of key and value heads; a divisor of n_heads.", above=0)
    head_dim: int = field(32, HEAD_DIM + " Even, because of RoPE.", above=0)
    d_ff: int = field(512, D_FF + " With experts: of each of them.", above=0)
    n_experts: int = field(
        0, "Experts in each layer, in place of the feed-forward layer; 0: none.", minimum=0
    )
    experts_per_token: int = field(
        0, "How many experts each token goes to, with n_experts.", minimum=0
    )
    normalize_expert_weights: bool = field(
        False, "Whether the weights of a token's experts are divided by their sum."
    )
    expert_layers: str = field(
        "",
        'With n_experts, which layers have experts ("E") and which a dense feed-forward layer '
        '("D"), repeated over the layers. Empty: all have experts.',
        letters="ED",
    )
    dense_d_ff: int = field(
        0, "Width of the dense feed-forward layers that expert_layers names; 0: none.", minimum=0
    )
    shared_d_ff: int = field(
        0,
        "Width of an expert that all tokens of a layer share, beside its other experts. Its output "
        "is multiplied by the sigmoid of a gate (Qwen3-Next). 0: none.",
        minimum=0,
    )
    activation: str = field(
        "silu",
        'Activation of the feed-forward layer\'s gate. "relu2" is the square of a relu. "xielu", '
        "for layers without a gate, has numbers that each layer learns (Apertus). "
        '"clamped_swish", for experts, has '
        "activation_limit and activation_slope, and 1 is added to what it gates (GPT-OSS).",
        choices=("silu", "gelu", "gelu_tanh", "relu2", "xielu", "clamped_swish"),
    )
    activation_limit: float = field(
        7.0,
        'For activation "clamped_swish": the largest gate, and the largest size of what it gates.',
        above=0,
    )
    activation_slope: float = field(
        1.702, 'For activation "clamped_swish": the factor inside its sigmoid.', above=0
    )
    norm: str = field(
        "rms",
        'The norms: "rms"; "layer", which subtracts the mean too and has no bias (Cohere); '
        '"biased_layer", which has one (Nemotron); or "plain_layer", which has neither weight nor '
        "bias (OLMo).",
        choices=("rms", "layer", "biased_layer", "plain_layer"),
    )
    norm_eps: float = field(1e-6, NORM_EPS, above=0, maximum=1)
    norm_offset: float = field(
        0.0,
        "Added to the weight of a norm: 1 for Gemma, which scales by (1 + weight).",
        minimum=0,
        maximum=1,
    )
    norm_placement: str = field(
        "pre",
        'Where a sublayer is normalized: before it ("pre", Llama), after it ("post", OLMo-2), or '
        'both ("both", Gemma 2). "parallel": attention and feed-forward layer read the same '
        'normalized states, and both are added (Cohere); "parallel_norms": each has a norm of its '
        "own (GPT-NeoX).",
        choices=("pre", "post", "both", "parallel", "parallel_norms"),
    )
    rope_theta: float = field(10_000.0, "Base of the RoPE frequencies.", above=0)
    rope_local_theta: float = field(
        0.0,
        "Base of the RoPE frequencies in layers with a sliding window (Gemma 3); 0: rope_theta.",
        minimum=0,
    )
    rope_dim: int = field(
        0, "Dimensions of each head that RoPE rotates, the first ones; 0: all.", minimum=0
    )
    rope_interleaved: bool = field(
        False,
        "Whether RoPE rotates neighboring dimensions (GLM, Cohere), not the halves of a head.",
    )
    rope_layers: str = field(
        "",
        'Which layers have RoPE ("R") and which have no positions ("N"), repeated over the layers: '
        '"RRRN" is SmolLM3. Empty: all have it.',
        letters="RN",
    )
    rope_scaling: str = field(
        "none",
        "How the RoPE frequencies are scaled for longer texts. Layers with a sliding window are "
        'not scaled unless rope_scales_local says so. "dynamic" changes nothing within max_length.',
        choices=("none", "linear", "llama3", "yarn", "dynamic", "longrope", "proportional"),
    )
    rope_proportion: float = field(
        1.0,
        'For rope_scaling "proportional": the part of the frequencies that turn, the fastest ones; '
        "the others are 0 (Gemma 4).",
        minimum=0,
        maximum=1,
    )
    rope_scales_local: bool = field(
        False, "Whether rope_scaling holds in layers with a sliding window too."
    )
    rope_factor: float = field(1.0, "Factor of RoPE scaling.", minimum=1)
    rope_attention_factor: float = field(
        1.0, "Factor on rotated queries and keys where RoPE is scaled (YaRN).", above=0
    )
    rope_beta_fast: float = field(
        32.0,
        'For rope_scaling "yarn": frequencies that turn more often within rope_original_length '
        "are not scaled.",
        above=0,
    )
    rope_beta_slow: float = field(
        1.0,
        'For rope_scaling "yarn": frequencies that turn less often within rope_original_length '
        "are scaled in full.",
        above=0,
    )
    rope_short_factors: tuple[float, ...] = field(
        (),
        'For rope_scaling "longrope": what each frequency is divided by in texts of up to '
        "rope_original_length tokens.",
        above=0,
    )
    rope_long_factors: tuple[float, ...] = field(
        (),
        'For rope_scaling "longrope": the same for longer texts. Each example of a packed row '
        "counts by itself; a request counts with all tokens that its answer may have.",
        above=0,
    )
    rope_truncate: bool = field(
        True, 'For rope_scaling "yarn": whether those two borders are whole dimensions.'
    )
    rope_low_freq_factor: float = field(
        1.0,
        'For rope_scaling "llama3": rope_original_length divided by this is the wavelength '
        "above which frequencies are scaled in full.",
        above=0,
    )
    rope_high_freq_factor: float = field(
        4.0,
        'For rope_scaling "llama3": rope_original_length divided by this is the wavelength '
        "below which frequencies are not scaled.",
        above=0,
    )
    rope_original_length: int = field(
        8192,
        "Length of the texts before scaling, for llama3, yarn, longrope and query_beta.",
        above=0,
    )
    qk_norm: str = field(
        "none",
        'Norm of queries and keys: over each head ("head", Qwen3; "head_after_rope", Hunyuan; '
        '"each_head", a layer norm with weights of its own for each head, Command R+) or over all '
        'heads together ("full", OLMo-2).',
        choices=("none", "head", "head_after_rope", "each_head", "full"),
    )
    value_norm: bool = field(
        False, "Whether each head's values are normalized too, without a weight (Gemma 4)."
    )
    clip_qkv: float = field(
        0.0, "Queries, keys and values are clipped to plus or minus this; 0: not.", minimum=0
    )
    qkv_bias: bool = field(False, "Whether the query, key and value projections have biases.")
    output_bias: bool = field(False, "Whether the output projection of attention has a bias.")
    mlp_bias: bool = field(False, "Whether the feed-forward projections have biases.")
    mlp_gated: bool = field(
        True,
        "Whether the feed-forward layer has a gate. Without one the activation is that of its "
        "hidden units (Nemotron, StarCoder2).",
    )
    attention_sinks: bool = field(
        False,
        "Whether each head has a score that takes part in the softmax and has no value (GPT-OSS).",
    )
    query_scale: float = field(0.0, "Factor on the queries; 0: head_dim ** -0.5.", minimum=0)
    query_beta: float = field(
        0.0,
        "Queries at position p are multiplied by 1 + query_beta * log(1 + p // "
        "rope_original_length) (Ministral 3).",
        minimum=0,
    )
    attention_softcap: float = field(0.0, "Soft cap on attention scores; 0: none.", minimum=0)
    final_softcap: float = field(0.0, "Soft cap on the logits; 0: none.", minimum=0)
    sliding_window: int = field(
        0, "Tokens that a local layer attends to; 0: every layer is global.", minimum=0
    )
    global_every: int = field(
        0, "With a sliding window, every n-th layer is global all the same; 0: none is.", minimum=0
    )
    layer_pattern: str = field(
        "",
        'With a sliding window, which layers are local ("L") and which global ("G"), repeated over '
        "the layers, where global_every cannot say it. Empty: global_every.",
        letters="LG",
    )
    global_head_dim: int = field(
        0, "Width of a head in global layers (Gemma 4); 0: head_dim. Even.", minimum=0
    )
    global_kv_heads: int = field(
        0, "Number of key and value heads in global layers; 0: n_kv_heads.", minimum=0
    )
    global_values_are_keys: bool = field(
        False, "Whether the key projection of global layers gives their values too (Gemma 4)."
    )
    kv_shared_layers: int = field(
        0,
        "How many layers, the last ones, have no keys and values: they read those of the last "
        "layer before them that is local or global as they are (Gemma 4).",
        minimum=0,
    )
    double_d_ff_where_shared: bool = field(
        False, "Whether the feed-forward layer of those layers has twice d_ff (Gemma 4 E2B)."
    )
    layer_input_dim: int = field(
        0,
        "Width of the embeddings that each layer has of its own (Gemma 4 E2B and E4B); 0: none.",
        minimum=0,
    )
    layer_input_rows: int = field(
        0, "Rows of that table, if they are more than vocab_size.", minimum=0
    )
    layer_scalar: bool = field(
        False,
        "Whether the output of each layer is multiplied by a number, which is not trained "
        "(Gemma 4).",
    )
    attention_gate: bool = field(
        False,
        "Whether the output of attention is multiplied by the sigmoid of a gate, which the query "
        "projection computes too (Qwen3.5).",
    )
    linear_layers: str = field(
        "",
        'Which layers have linear attention, by the gated delta rule ("L"), and which have softmax '
        'attention ("F"), repeated over the layers: "LLLF" is Qwen3.5. Empty: all have softmax '
        "attention.",
        letters="LF",
    )
    linear_key_heads: int = field(
        3, "Number of query and of key heads in layers with linear attention.", above=0
    )
    linear_value_heads: int = field(
        6, "Number of value heads there; a multiple of linear_key_heads.", above=0
    )
    linear_key_dim: int = field(32, "Width of a query or key head there.", above=0)
    linear_value_dim: int = field(32, "Width of a value head there.", above=0)
    linear_conv: int = field(
        4, "Tokens that the convolution before linear attention sees, itself among them.", above=0
    )
    tied_embedding: bool = field(True, TIED_EMBEDDING)
    scale_embedding: bool = field(
        False, "Whether embeddings are multiplied by sqrt(d_model), as Gemma's are."
    )
    embedding_multiplier: float = field(
        1.0, "Embeddings are multiplied by this too (Granite).", above=0
    )
    residual_multiplier: float = field(
        1.0,
        "Outputs of attention and feed-forward layers are multiplied by this before they are "
        "added (Granite).",
        above=0,
    )
    logits_scaling: float = field(1.0, "The logits are divided by this (Granite, Cohere).", above=0)
    dropout: float = field(0.0, DROPOUT, minimum=0, below=1)
    dropout_schedule: str = field(
        "constant",
        'The dropout rate by layer: "constant", or "linear" from 0 in the lowest layer to dropout '
        "in the highest (LIMA).",
        choices=("constant", "linear"),
    )
    dtype: str = field("float32", DTYPE, choices=DTYPES)
    remat: str = field("auto", REMAT, choices=("auto", *REMAT_POLICIES))
    attention: str = field("auto", ATTENTION, choices=ATTENTIONS)

    def is_long_text(self, n_tokens: int) -> bool:
        """Whether LongRoPE has its frequencies for long texts in one of so many tokens."""
        return self.rope_scaling == "longrope" and n_tokens > self.rope_original_length
