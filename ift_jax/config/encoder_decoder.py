"""Config section `model` of an encoder-decoder."""

import dataclasses

from ift_jax.config.fields import field
from ift_jax.config.model import DecoderConfig
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
class EncoderDecoderConfig:
    """T5 (1.0 has a relu and a tied embedding, 1.1 a gated gelu and an untied one), or T5Gemma.

    The fields from `max_length` on are those of block "gemma".
    """

    architecture: str = field(
        "encoder_decoder",
        "The architecture; default_config('encoder_decoder') sets it.",
        choices=("encoder_decoder",),
    )
    init_from: str = field("", INIT_FROM)
    block: str = field(
        "t5",
        'The layers: "t5" (a norm before each sublayer, a relative position bias, scores that are '
        'not scaled), or "gemma" (norms before and after, RoPE, grouped heads; T5Gemma).',
        choices=("t5", "gemma"),
    )
    vocab_size: int = field(0, VOCAB_SIZE, minimum=0)
    d_model: int = field(192, D_MODEL, above=0)
    n_encoder_layers: int = field(3, "Number of encoder layers.", above=0)
    n_decoder_layers: int = field(3, "Number of decoder layers.", above=0)
    n_heads: int = field(6, N_HEADS, above=0)
    head_dim: int = field(32, HEAD_DIM, above=0)
    d_ff: int = field(512, D_FF, above=0)
    activation: str = field(
        "gated_gelu",
        'Activation of the feed-forward layer: "relu" (T5 1.0), "gated_gelu" (T5 1.1), or '
        '"gated_silu" (UL2).',
        choices=("relu", "gated_gelu", "gated_silu"),
    )
    norm_eps: float = field(1e-6, NORM_EPS, above=0, maximum=1)
    relative_buckets: int = field(32, "Number of relative-position buckets.", minimum=4)
    relative_max_distance: int = field(
        128,
        "Distances from this on share the last bucket; more than half of relative_buckets.",
        above=0,
    )
    bias_per_layer: bool = field(
        False,
        "Whether each layer has a relative position bias of its own (umT5), where the layers of a "
        "stack share one in T5.",
    )
    decoder_start_id: int = field(
        0, "The id that the decoder reads first: padding in T5, BOS in T5Gemma.", minimum=0
    )
    tied_embedding: bool = field(False, TIED_EMBEDDING)
    max_length: int = field(
        0, "Number of positions that each stack was made for; 0: no limit.", minimum=0
    )
    n_kv_heads: int = field(0, "Number of key and value heads; 0: n_heads.", minimum=0)
    encoder_d_model: int = field(
        0, "Width of the encoder's residual stream; 0: d_model.", minimum=0
    )
    encoder_n_heads: int = field(0, "The encoder's n_heads; 0: those of the decoder.", minimum=0)
    encoder_n_kv_heads: int = field(
        0, "The encoder's n_kv_heads; 0: those of the decoder.", minimum=0
    )
    encoder_d_ff: int = field(0, "The encoder's d_ff; 0: that of the decoder.", minimum=0)
    encoder_embedding: bool = field(False, "Whether the encoder has an embedding of its own.")
    merged_attention: bool = field(
        False,
        "Whether the decoder attends to its own tokens and to the encoder's in one softmax, with "
        "the same projections (T5Gemma 2), where there is a cross-attention otherwise.",
    )
    image_end_id: int = field(
        0,
        "The token behind an image, whose embedding is apart from the others (T5Gemma 2); 0: none.",
        minimum=0,
    )
    qk_norm: str = field(
        "none", 'Norm of queries and keys: over each head ("head").', choices=("none", "head")
    )
    query_scale: float = field(0.0, "Factor on the queries; 0: head_dim ** -0.5.", minimum=0)
    attention_softcap: float = field(0.0, "Soft cap on attention scores; 0: none.", minimum=0)
    final_softcap: float = field(0.0, "Soft cap on the logits; 0: none.", minimum=0)
    rope_theta: float = field(10_000.0, "Base of the RoPE frequencies.", above=0)
    rope_local_theta: float = field(
        0.0,
        "Base of the RoPE frequencies in layers with a sliding window; 0: rope_theta.",
        minimum=0,
    )
    rope_scaling: str = field(
        "none", "How the RoPE frequencies of global layers are scaled.", choices=("none", "linear")
    )
    rope_factor: float = field(1.0, "Factor of RoPE scaling.", minimum=1)
    sliding_window: int = field(
        0,
        "Tokens that a local layer of the decoder attends to; 0: every layer is global. One of the "
        "encoder attends to as many on each side of a token, or with merged_attention to as many "
        "in all.",
        minimum=0,
    )
    global_every: int = field(
        0, "With a sliding window, every n-th layer is global all the same; 0: none is.", minimum=0
    )
    layer_pattern: str = field(
        "",
        'With a sliding window, which layers are local ("L") and which global ("G"), repeated over '
        "the layers of each stack, where global_every cannot say it. Empty: global_every.",
        letters="LG",
    )
    dropout: float = field(0.0, DROPOUT, minimum=0, below=1)
    dtype: str = field("float32", DTYPE, choices=DTYPES)
    remat: str = field("auto", REMAT, choices=("auto", *REMAT_POLICIES))
    attention: str = field(
        "auto",
        ATTENTION + " With block t5 the kernels serve cross-attention only, because self-attention "
        "has a bias; with merged_attention, the encoder.",
        choices=ATTENTIONS,
    )

    @property
    def kv_heads(self) -> int:
        """The key and value heads of the decoder."""
        return self.n_kv_heads or self.n_heads

    @property
    def output_scale(self) -> float:
        """What the decoder's states are multiplied by before the head: T5 does so if it is tied."""
        return self.d_model**-0.5 if self.tied_embedding and self.block == "t5" else 1.0

    @property
    def encoder_width(self) -> int:
        """The width of the encoder's output."""
        return self.encoder_d_model or self.d_model

    def written_out(self) -> dict[str, int]:
        """The sizes that may be 0, by the names of their fields, as numbers."""
        encoder = self.stack(decoder=False)
        return {
            "n_kv_heads": self.kv_heads,
            "encoder_d_model": encoder.d_model,
            "encoder_n_heads": encoder.n_heads,
            "encoder_n_kv_heads": encoder.n_kv_heads,
            "encoder_d_ff": encoder.d_ff,
        }

    def stack(self, *, decoder: bool) -> DecoderConfig:
        """The layers of a stack of block "gemma", described as a decoder made of them.

        A local layer of an encoder attends to the tokens at a distance of up to and including the
        window, on both sides; a decoder's window counts the token itself.
        """
        c = self
        window = c.sliding_window
        if window and not decoder and not c.merged_attention:
            window += 1
        return DecoderConfig(
            vocab_size=c.vocab_size,
            max_length=c.max_length,
            d_model=c.d_model if decoder else c.encoder_width,
            n_layers=c.n_decoder_layers if decoder else c.n_encoder_layers,
            n_heads=c.n_heads if decoder else c.encoder_n_heads or c.n_heads,
            n_kv_heads=c.kv_heads if decoder else c.encoder_n_kv_heads or c.kv_heads,
            head_dim=c.head_dim,
            d_ff=c.d_ff if decoder else c.encoder_d_ff or c.d_ff,
            activation="gelu_tanh" if c.activation == "gated_gelu" else "silu",
            norm_eps=c.norm_eps,
            norm_offset=1.0,
            norm_placement="both",
            qk_norm=c.qk_norm,
            query_scale=c.query_scale,
            attention_softcap=c.attention_softcap,
            rope_theta=c.rope_theta,
            rope_local_theta=c.rope_local_theta,
            rope_scaling=c.rope_scaling,
            rope_factor=c.rope_factor,
            sliding_window=window,
            global_every=c.global_every,
            layer_pattern=c.layer_pattern,
            dropout=c.dropout,
            dtype=c.dtype,
            remat=c.remat,
            attention=c.attention,
        )


ModelConfig = DecoderConfig | EncoderDecoderConfig
