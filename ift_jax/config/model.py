"""Config sections `model` and `lora`: the architecture, its shape, and its adapters."""

import dataclasses

from ift_jax.config.fields import field

REMAT_POLICIES = ("none", "minimal", "dots", "save_attention", "full", "offload")

# Fields that both architectures have. Each class states its own default beside the shared help.
_INIT_FROM = (
    "A Hugging Face folder or a run's workdir to start from: its weights, its tokenizer, and every "
    "field of this section that is part of the model (all but dropout, dropout_schedule, dtype, "
    "remat and attention). Empty: fresh weights."
)
_VOCAB_SIZE = "Rows of the embedding; 0: the tokenizer's size, rounded up to a multiple of 128."
_D_MODEL = "Width of the residual stream."
_N_HEADS = "Number of query heads."
_HEAD_DIM = "Width of a head."
_D_FF = "Width of the feed-forward layer."
_NORM_EPS = "Added to the mean square in RMS norms."
_TIED_EMBEDDING = "Whether the output head shares the embedding's weights."
_DROPOUT = "Dropout rate on the output of each sublayer."
_DTYPE = "Type of activations and matrix products. Parameters are float32."
_REMAT = (
    "What the backward pass recomputes instead of keeping, from nothing to everything; see "
    "docs/memory.md."
)
_ATTENTION = (
    'The attention implementation in training; "auto" chooses by platform and length. "splash" '
    '(Pallas for TPU) and "triton" (Pallas for NVIDIA GPUs) are interpreted on other platforms, '
    "which is slow. See docs/attention.md."
)
_DTYPES = ("float32", "bfloat16")
_ATTENTIONS = ("auto", "xla", "blockwise", "splash", "triton")


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer. The defaults are a small model of Llama's kind."""

    architecture: str = field(
        "decoder", "The architecture; default_config() sets it.", choices=("decoder",)
    )
    init_from: str = field("", _INIT_FROM)
    vocab_size: int = field(0, _VOCAB_SIZE, minimum=0)
    max_length: int = field(
        0, "Number of positions that the model was made for; 0: no limit.", minimum=0
    )
    d_model: int = field(192, _D_MODEL, above=0)
    n_layers: int = field(4, "Number of layers.", above=0)
    n_heads: int = field(6, _N_HEADS, above=0)
    n_kv_heads: int = field(2, "Number of key and value heads; a divisor of n_heads.", above=0)
    head_dim: int = field(32, _HEAD_DIM + " Even, because of RoPE.", above=0)
    d_ff: int = field(512, _D_FF, above=0)
    activation: str = field(
        "silu",
        "Activation of the feed-forward layer's gate.",
        choices=("silu", "gelu", "gelu_tanh"),
    )
    norm: str = field(
        "rms",
        'The norms: "rms"; "layer", which subtracts the mean too and has no bias (Cohere); or '
        '"plain_layer", which has no weight either (OLMo).',
        choices=("rms", "layer", "plain_layer"),
    )
    norm_eps: float = field(1e-6, _NORM_EPS, above=0, maximum=1)
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
        "normalized states, and both are added (Cohere).",
        choices=("pre", "post", "both", "parallel"),
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
        choices=("none", "linear", "llama3", "yarn", "dynamic", "longrope"),
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
        "rope_original_length tokens. Longer texts are refused.",
        above=0,
    )
    rope_long_factors: tuple[float, ...] = field(
        (),
        'For rope_scaling "longrope": the same for longer texts. It is kept for exports.',
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
        'Norm of queries and keys: over each head ("head", Qwen3; "head_after_rope", Hunyuan) or '
        'over all heads together ("full", OLMo-2).',
        choices=("none", "head", "head_after_rope", "full"),
    )
    clip_qkv: float = field(
        0.0, "Queries, keys and values are clipped to plus or minus this; 0: not.", minimum=0
    )
    qkv_bias: bool = field(False, "Whether the query, key and value projections have biases.")
    output_bias: bool = field(False, "Whether the output projection of attention has a bias.")
    mlp_bias: bool = field(False, "Whether the feed-forward projections have biases.")
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
    tied_embedding: bool = field(True, _TIED_EMBEDDING)
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
    dropout: float = field(0.0, _DROPOUT, minimum=0, below=1)
    dropout_schedule: str = field(
        "constant",
        'The dropout rate by layer: "constant", or "linear" from 0 in the lowest layer to dropout '
        "in the highest (LIMA).",
        choices=("constant", "linear"),
    )
    dtype: str = field("float32", _DTYPE, choices=_DTYPES)
    remat: str = field("none", _REMAT, choices=REMAT_POLICIES)
    attention: str = field("auto", _ATTENTION, choices=_ATTENTIONS)

    @property
    def positions(self) -> int:
        """The most tokens of a text, of prompt and answer together; 0: no limit."""
        if self.rope_scaling == "longrope":
            return min(self.max_length or self.rope_original_length, self.rope_original_length)
        return self.max_length

    def local_layers(self) -> list[bool]:
        """Whether each layer has the sliding window."""
        if not self.sliding_window:
            return [False] * self.n_layers
        pattern = self.layer_pattern or "L" * ((self.global_every or self.n_layers + 1) - 1) + "G"
        return [letter == "L" for letter in self._of_layers(pattern)]

    def rotating_layers(self) -> list[bool]:
        """Whether each layer has RoPE."""
        return [letter == "R" for letter in self._of_layers(self.rope_layers or "R")]

    def _of_layers(self, pattern: str) -> list[str]:
        return [pattern[layer % len(pattern)] for layer in range(self.n_layers)]


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """T5: 1.0 with a relu and a tied embedding, 1.1 with a gated gelu and an untied one."""

    architecture: str = field(
        "encoder_decoder",
        "The architecture; default_config('encoder_decoder') sets it.",
        choices=("encoder_decoder",),
    )
    init_from: str = field("", _INIT_FROM)
    vocab_size: int = field(0, _VOCAB_SIZE, minimum=0)
    d_model: int = field(192, _D_MODEL, above=0)
    n_encoder_layers: int = field(3, "Number of encoder layers.", above=0)
    n_decoder_layers: int = field(3, "Number of decoder layers.", above=0)
    n_heads: int = field(6, _N_HEADS, above=0)
    head_dim: int = field(32, _HEAD_DIM, above=0)
    d_ff: int = field(512, _D_FF, above=0)
    activation: str = field(
        "gated_gelu",
        'Activation of the feed-forward layer: "relu" (T5 1.0) or "gated_gelu" (T5 1.1).',
        choices=("relu", "gated_gelu"),
    )
    norm_eps: float = field(1e-6, _NORM_EPS, above=0, maximum=1)
    relative_buckets: int = field(32, "Number of relative-position buckets.", minimum=4)
    relative_max_distance: int = field(
        128,
        "Distances from this on share the last bucket; more than half of relative_buckets.",
        above=0,
    )
    tied_embedding: bool = field(False, _TIED_EMBEDDING)
    dropout: float = field(0.0, _DROPOUT, minimum=0, below=1)
    dtype: str = field("float32", _DTYPE, choices=_DTYPES)
    remat: str = field("none", _REMAT, choices=REMAT_POLICIES)
    attention: str = field(
        "auto",
        _ATTENTION + " The kernels serve cross-attention only, because self-attention has a bias.",
        choices=_ATTENTIONS,
    )


ModelConfig = DecoderConfig | EncoderDecoderConfig


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (ift_jax/models/lora.py). With them nothing else is trained."""

    rank: int = field(0, "Rank of the adapters; 0: no LoRA.", minimum=0)
    alpha: float = field(16.0, "The adapters' product is scaled by alpha / rank.", above=0)
    rslora: bool = field(False, "Whether the scale is alpha / sqrt(rank) instead.")
    targets: str = field(
        "attention|cross|mlp",
        "Projections that get an adapter: those with a match in their path, such as "
        '"layers.attention.query", "decoder.layers.cross.key" or "layers.mlp.down".',
        regex=True,
    )
