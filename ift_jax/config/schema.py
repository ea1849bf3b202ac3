"""The frozen dataclasses of a run, and every check of a config.

A config file (`configs/*.py`) fills an `ml_collections.ConfigDict` of the same fields;
`ift_jax.config.files` turns one into the other.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """Which tokenizer a run uses: the one at `path`, or one that it trains."""

    path: str = ""  # A SentencePiece `.model`, a `tokenizer.json`, or a folder that holds one.
    extra_ids: int = 0  # T5's sentinels, numbered downwards from the last id.
    train_vocab_size: int = 0  # > 0: a SentencePiece model with byte fallback, of the mixture.
    added_tokens: tuple[str, ...] = ()  # Special tokens that are added where it lacks them.


@dataclasses.dataclass(frozen=True)
class FormatConfig:
    """How a record becomes segments, and which of them are trained."""

    # A name in `ift_jax.text.chat_templates`, "model" (the tokenizer's own chat template), a
    # `.jinja` file, or the text of one. "plain" is inputs + targets.
    template: str = "chatml"
    template_options: tuple[str, ...] = ()  # Variables of the template: "enable_thinking=false".
    train_on: str = "all"  # "all" or "last" assistant turn; a turn's own weight multiplies.
    input_eos: bool = True  # Encoder-decoder: EOS after the encoder's text (T5 yes, T0 no).
    bidirectional_prefix: bool = False  # Decoder: the prompt attends to itself both ways.
    control_strings: str = "text"  # Control strings inside a message: "text" or "control".


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data of a run. Lengths are in tokens."""

    # The module with the table of systems; it decides `modules` where those are not given.
    systems: str = "tasks"
    modules: tuple[str, ...] = ()  # Modules that register the tasks, imported in order.
    root: str = ""  # Folder or file handed to a module's `register(root)`, where it has one.
    mixture: str = ""  # A SeqIO task or mixture.
    split: str = "train"
    eval_mixture: str = ""  # Unseen examples of trained tasks; "" means `mixture`.
    eval_split: str = "validation"
    heldout_mixture: str = ""  # Tasks that training never sees; "" means none.
    heldout_split: str = "test"
    store_dir: str = "stores"  # Token stores, shared between runs.
    max_length: int = 512  # Decoder: tokens a row. Encoder-decoder: see the two below.
    inputs_length: int = 512
    targets_length: int = 128
    over_length: str = "drop"  # "drop", "truncate-prompt" or "error".
    max_dropped_fraction: float = 0.05  # More dropped and truncated than this is an error.
    pack: bool = True
    window: int = 8192  # Examples that are packed together; the rates hold in each window.
    variants: int = 1  # Renderings of each example; epoch e reads variant e mod variants.
    processes: int = 0  # Processes that prepare a store; 0: one a core where it pays.


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """A decoder-only transformer. The defaults are Llama's shape, small."""

    architecture: str = "decoder"
    # A Hugging Face folder or a run's workdir: its weights, its tokenizer and the fields below
    # that are part of the model (all but dropout*, dtype, remat, attention). "": fresh weights.
    init_from: str = ""
    vocab_size: int = 0  # 0: the tokenizer's, rounded up to a multiple of 128.
    max_length: int = 0  # Positions that the model was made for; 0: no bound.
    d_model: int = 192
    n_layers: int = 4
    n_heads: int = 6
    n_kv_heads: int = 2
    head_dim: int = 32
    d_ff: int = 512
    activation: str = "silu"  # Of the gate: "silu", "gelu" or "gelu_tanh".
    norm_eps: float = 1e-6
    norm_offset: float = 0.0  # Gemma scales by (1 + weight).
    norm_placement: str = "pre"  # "pre" (Llama), "post" (OLMo-2) or "both" (Gemma 2).
    rope_theta: float = 10_000.0
    rope_local_theta: float = 0.0  # Of layers with a sliding window; 0: rope_theta (Gemma 3 not).
    rope_scaling: str = "none"  # "none", "linear" or "llama3"; local layers are never scaled.
    rope_factor: float = 1.0  # Of both scalings.
    rope_low_freq_factor: float = 1.0  # llama3: see `models.rope.frequencies`.
    rope_high_freq_factor: float = 4.0
    rope_original_length: int = 8192
    qk_norm: str = "none"  # "none", "head" (Qwen3: over head_dim) or "full" (OLMo-2: all heads).
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    query_scale: float = 0.0  # 0: head_dim ** -0.5.
    attention_softcap: float = 0.0  # 0: none.
    final_softcap: float = 0.0
    sliding_window: int = 0  # Tokens that a local layer sees; 0: every layer is global.
    global_every: int = 0  # Every n-th layer is global although sliding_window > 0; 0: none.
    tied_embedding: bool = True
    scale_embedding: bool = False  # Gemma multiplies embeddings by sqrt(d_model).
    dropout: float = 0.0  # On the output of each sublayer.
    # "constant", or "linear": from 0 in the lowest layer to `dropout` in the highest (LIMA).
    dropout_schedule: str = "constant"
    dtype: str = "float32"  # Of the activations: "float32" or "bfloat16". Parameters are float32.
    # What the backward pass computes again, from nothing to all: "none", "minimal", "dots",
    # "save_attention", "full", "offload"; see docs/memory.md.
    remat: str = "none"
    # "auto" (by the devices' platform and the length), "xla", "blockwise", "splash" (Pallas, for
    # TPU) or "triton" (Pallas, for NVIDIA GPUs), both interpreted elsewhere, so slow; in training.
    # See docs/attention.md.
    attention: str = "auto"


@dataclasses.dataclass(frozen=True)
class EncoderDecoderConfig:
    """T5: 1.0 with activation "relu" and a tied embedding, 1.1 with "gated_gelu" and without."""

    architecture: str = "encoder_decoder"
    init_from: str = ""  # See DecoderConfig.
    vocab_size: int = 0
    d_model: int = 192
    n_encoder_layers: int = 3
    n_decoder_layers: int = 3
    n_heads: int = 6
    head_dim: int = 32
    d_ff: int = 512
    activation: str = "gated_gelu"  # "relu" (1.0) or "gated_gelu" (1.1).
    norm_eps: float = 1e-6
    relative_buckets: int = 32
    relative_max_distance: int = 128
    tied_embedding: bool = False
    dropout: float = 0.0
    dtype: str = "float32"
    remat: str = "none"
    attention: str = "auto"  # As a decoder's; kernels are of cross-attention only.


ModelConfig = DecoderConfig | EncoderDecoderConfig


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (`ift_jax.models.lora`); with them nothing else is trained."""

    rank: int = 0  # 0: none.
    alpha: float = 16.0  # The adapters' product is scaled by alpha / rank.
    rslora: bool = False  # By alpha / sqrt(rank).
    # A regular expression, searched in the path of each projection: "layers.attention.query",
    # "decoder.layers.cross.key", "layers.mlp.down".
    targets: str = "attention|cross|mlp"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    # "adamw", "adafactor" (T5's settings), "lion", "sgd" (momentum b1) or "muon" (of momentum b1,
    # for the matrices of the layers; the rest has AdamW).
    name: str = "adamw"
    learning_rate: float = 1e-3  # The peak.
    schedule: str = "cosine"  # "constant", "linear", "cosine" or "rsqrt", after the warm-up.
    warmup_steps: int = 0
    warmup_ratio: float = 0.0  # Of the run's steps; used when warmup_steps is 0.
    final_ratio: float = 0.0  # linear and cosine end at this share of the peak.
    rsqrt_offset: int = 10_000  # rsqrt: peak * sqrt(offset / max(step, offset)), as in T5.
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    moment_dtype: str = "float32"  # Of the first moment, or "bfloat16". Adafactor has none.
    weight_decay: float = 0.0
    decay_norms_and_biases: bool = False
    clip_norm: float = 1.0  # Global gradient norm; 0: none.
    # Cuts the optimizer's state along the mesh axis `data` as well as `fsdp` (ZeRO-1).
    shard_over_data: bool = False
    # A regular expression: parameters in whose path ("layers.mlp.up.weight", "embedding") it is
    # found are not trained. They get neither a gradient nor optimizer state.
    freeze: str = ""


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss: sum of weight * token loss, over one denominator."""

    normalization: str = "tokens"  # "tokens", "examples", "constant" or "sum".
    constant: float = 1.0  # The denominator of "constant".
    z_loss: float = 0.0
    label_smoothing: float = 0.0
    chunk: int = 0  # Positions of a row a chunk of the output head; 0: chosen from the shape.


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of a run, its batches, and what is written when."""

    batch_size: int = 32  # Rows a step, over all devices; 0: from batch_tokens.
    # Of a step, with batch_size 0: rows times max_length or, as T0 counts them, inputs_length.
    batch_tokens: int = 0
    gradient_accumulation_steps: int = (
        1  # Gradient accumulation: sums over this many slices of the batch.
    )
    steps: int = 0  # 0: `epochs` decides.
    epochs: float = 0.0
    log_every: int = 10
    save_every: int = 0  # Steps; 0: at the end only (and on SIGTERM).
    max_to_keep: int = 2  # The newest checkpoints that are kept.
    keep_best: int = 0  # Besides, the best by eval loss.
    eval_every: int = 0  # Held-out loss; 0: at the end only.
    eval_rows: int = 256  # Rows of held-out loss at the most; 0: all.
    preview_every: int = 0  # Generations of fixed prompts; 0: at step 0 and at the end.
    preview_prompts: int = 4
    max_bad_steps: int = 20  # Non-finite steps in a row that end the run.
    compile_cache: str = ""  # Folder of JAX's compilation cache; "": none.
    peak_tflops: float = 0.0  # A device's peak for MFU; 0: measured with a matrix product.


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Scores on unseen examples when training ends: answers, or the likeliest of its choices."""

    examples: int = 0  # A task; 0: no such evaluation.
    sets: tuple[str, ...] = ("eval", "heldout")  # Of which mixtures.
    batch_size: int = 64
    max_new_tokens: int = 64
    length_normalize: bool = False  # Choices are ranked by their mean, not sum, of log-probs.
    stop_ids: tuple[int, ...] = ()  # Besides the format's; a released model's are taken over.


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each mesh axis; one axis may be -1: what is left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    sequence: int = 1


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = 0
    tokenizer: TokenizerConfig = TokenizerConfig()
    format: FormatConfig = FormatConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = DecoderConfig()
    lora: LoraConfig = LoraConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    mesh: MeshConfig = MeshConfig()
