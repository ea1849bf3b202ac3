"""The shapes of models that are compared, here and in `transformers`."""

from typing import Any, NamedTuple

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig, ModelConfig


class DecoderShape(NamedTuple):
    """The shape of a Llama."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int


class T5Shape(NamedTuple):
    """The shape of a T5 1.1; both stacks have as many layers."""

    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    head_dim: int
    d_ff: int


DECODERS = {
    # SmolLM2-135M.
    "llama_135m": DecoderShape(
        vocab_size=49_152, d_model=576, n_layers=30, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536
    ),
    # SmolLM2-1.7B.
    "llama_1_7b": DecoderShape(
        vocab_size=49_152,
        d_model=2048,
        n_layers=24,
        n_heads=32,
        n_kv_heads=32,
        head_dim=64,
        d_ff=8192,
    ),
    # Its layers, fewer of them, and a smaller head: what attention costs in long rows.
    "long_rows": DecoderShape(
        vocab_size=8192, d_model=576, n_layers=6, n_heads=9, n_kv_heads=3, head_dim=64, d_ff=1536
    ),
    "small": DecoderShape(
        vocab_size=32_000, d_model=256, n_layers=4, n_heads=4, n_kv_heads=4, head_dim=64, d_ff=1024
    ),
    # To try a benchmark in seconds; its figures mean nothing.
    "tiny": DecoderShape(
        vocab_size=512, d_model=32, n_layers=2, n_heads=2, n_kv_heads=1, head_dim=16, d_ff=64
    ),
}
# The projections of a layer, as `transformers` names them.
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
T5_SMALL = T5Shape(vocab_size=32_128, d_model=512, n_layers=8, n_heads=6, head_dim=64, d_ff=1024)


def our_config(shape: str, **fields: Any) -> ModelConfig:
    """Return our config of a decoder shape by name, or else of T5_SMALL."""
    if shape in DECODERS:
        return DecoderConfig(**DECODERS[shape]._asdict(), **fields)
    t5 = T5_SMALL
    return EncoderDecoderConfig(
        vocab_size=t5.vocab_size,
        d_model=t5.d_model,
        n_encoder_layers=t5.n_layers,
        n_decoder_layers=t5.n_layers,
        n_heads=t5.n_heads,
        head_dim=t5.head_dim,
        d_ff=t5.d_ff,
        **fields,
    )


def torch_model(shape: str, attention: str = "sdpa") -> Any:
    """Return the model of `transformers` for a decoder shape by name, or else for T5_SMALL.

    Args:
        shape: A key of DECODERS, or anything else for T5_SMALL.
        attention: The attention implementation of a decoder, as `transformers` names it.
    """
    import transformers

    if shape in DECODERS:
        decoder = DECODERS[shape]
        llama_config = transformers.LlamaConfig(
            vocab_size=decoder.vocab_size,
            hidden_size=decoder.d_model,
            num_hidden_layers=decoder.n_layers,
            num_attention_heads=decoder.n_heads,
            num_key_value_heads=decoder.n_kv_heads,
            head_dim=decoder.head_dim,
            intermediate_size=decoder.d_ff,
            tie_word_embeddings=True,
            attn_implementation=attention,
        )
        return transformers.LlamaForCausalLM(llama_config)
    t5 = T5_SMALL
    t5_config = transformers.T5Config(
        vocab_size=t5.vocab_size,
        d_model=t5.d_model,
        d_kv=t5.head_dim,
        d_ff=t5.d_ff,
        num_layers=t5.n_layers,
        num_decoder_layers=t5.n_layers,
        num_heads=t5.n_heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        dropout_rate=0.0,
    )
    return transformers.T5ForConditionalGeneration(t5_config)
