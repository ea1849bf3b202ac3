"""Config sections `optimizer`, `loss`, `train`, `evaluation` and `mesh`: how a run proceeds."""

import dataclasses

from ift_jax.config.fields import field


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its learning-rate schedule."""

    name: str = field(
        "adamw",
        'The optimizer. "adafactor" has T5\'s settings; "sgd" has momentum b1; "muon" has momentum '
        "b1 and trains the matrices of the layers, while AdamW trains the rest.",
        choices=("adamw", "adafactor", "lion", "sgd", "muon"),
    )
    learning_rate: float = field(
        0.0,
        "The peak of the schedule. 0: 1e-3 for fresh weights; with model.init_from 2e-5 for adamw, "
        "2e-4 for adamw with LoRA, and 1e-3 for adafactor; on pairs 1e-6, and 1e-5 with LoRA.",
        minimum=0,
    )
    schedule: str = field(
        "cosine",
        'The learning rate after the warm-up. "wsd" (warm-up, stable, decay) stays at the peak and '
        "decays at the end of the run.",
        choices=("constant", "linear", "cosine", "rsqrt", "wsd"),
    )
    warmup_steps: int = field(0, "Steps of linear warm-up; 0: warmup_ratio decides.", minimum=0)
    warmup_ratio: float = field(
        0.0,
        "Length of the warm-up as a fraction of the run's steps; used if warmup_steps is 0.",
        minimum=0,
        maximum=1,
    )
    final_ratio: float = field(
        0.0,
        "The linear, cosine and wsd schedules end at this fraction of the peak.",
        minimum=0,
        maximum=1,
    )
    decay_steps: int = field(
        0, "Steps of the decay of the wsd schedule; 0: decay_ratio decides.", minimum=0
    )
    decay_ratio: float = field(
        0.1,
        "Length of the decay of the wsd schedule as a fraction of the run's steps; used if "
        "decay_steps is 0.",
        above=0,
        maximum=1,
    )
    decay_shape: str = field(
        "linear",
        'How the wsd schedule decays: in a straight line, along half a cosine, or as "1-sqrt", '
        "which falls steeply at first (arXiv:2405.18392).",
        choices=("linear", "cosine", "1-sqrt"),
    )
    rsqrt_offset: int = field(
        10_000,
        "The rsqrt schedule is peak * sqrt(offset / max(step, offset)), as in T5.",
        above=0,
    )
    b1: float = field(
        0.9, "Decay of the first moment; momentum of sgd and muon.", minimum=0, below=1
    )
    b2: float = field(0.999, "Decay of the second moment.", minimum=0, below=1)
    eps: float = field(1e-8, "Added to the denominator of Adam's update.", above=0)
    moment_dtype: str = field(
        "float32",
        "Type of the first moment. Adafactor has none.",
        choices=("float32", "bfloat16"),
    )
    weight_decay: float = field(0.0, "Decoupled weight decay.", minimum=0)
    decay_norms_and_biases: bool = field(
        False, "Whether norms and biases are decayed as matrices are."
    )
    clip_norm: float = field(1.0, "Largest global norm of a gradient; 0: no clipping.", minimum=0)
    shard_over_data: bool = field(
        False,
        "Whether the optimizer's state is sharded over the mesh axis data as well as over fsdp "
        "(ZeRO-1).",
    )
    keep_state: bool = field(
        False,
        "Whether the optimizer's state continues that of the run in model.init_from, whose "
        "optimizer must be the same one; otherwise it begins anew. The schedule begins anew in any "
        "case.",
    )
    freeze: str = field(
        "",
        'Parameters with a match in their path, such as "layers.mlp.up.weight" or "embedding", are '
        "not trained; they have neither gradients nor optimizer state. Empty: all are trained.",
        regex=True,
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The training loss: the sum of weight * token loss over one denominator."""

    normalization: str = field(
        "tokens",
        "The denominator: the sum of the tokens' weights in the batch, its number of examples, a "
        "constant, or 1 (sum).",
        choices=("tokens", "examples", "constant", "sum"),
    )
    constant: float = field(1.0, 'The denominator for normalization "constant".', above=0)
    z_loss: float = field(
        0.0, "Factor of the squared log-sum-exp of the logits (T5X: 1e-4).", minimum=0
    )
    label_smoothing: float = field(
        0.0, "Probability spread over the whole vocabulary.", minimum=0, below=1
    )
    router_balance: float = field(
        0.0,
        "Factor of the load-balancing loss of a mixture of experts (transformers: 1e-3 or 1e-2, "
        "the release's router_aux_loss_coef).",
        minimum=0,
    )
    router_z_loss: float = field(
        0.0,
        "Factor of the squared log-sum-exp of a mixture's router logits (ST-MoE: 1e-3).",
        minimum=0,
    )
    chunk: int = field(
        0,
        "Positions per chunk of the output head; 0: chosen from the shape of the batch.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of a run, its batches, and when it writes what."""

    batch_size: int = field(
        8, "Rows per step over all devices; 0: batch_tokens decides.", minimum=0
    )
    batch_tokens: int = field(
        0,
        "Tokens per step over all devices, if batch_size is 0: rows times max_length or, for an "
        "encoder-decoder, times inputs_length (as T0 counts).",
        minimum=0,
    )
    gradient_accumulation_steps: int = field(
        1,
        "Slices of a batch that are computed one after another; a divisor of batch_size.",
        above=0,
    )
    steps: int = field(0, "Number of steps; 0: epochs decides.", minimum=0)
    epochs: float = field(
        0.0, "Number of epochs of the mixture, if steps is 0.", minimum=0, maximum=1_000_000
    )
    log_every: int = field(10, "Steps between lines of metrics.", above=0)
    save_every: int = field(
        500, "Steps between checkpoints; 0: only at the end, or on SIGTERM.", minimum=0
    )
    max_to_keep: int = field(2, "Number of newest checkpoints that are kept.", above=0)
    keep_best: int = field(
        0,
        "Number of checkpoints with the best finite train.best_metric that are kept as well.",
        minimum=0,
    )
    best_metric: str = field(
        "eval_loss",
        "What train.keep_best and train.early_stopping_patience look at: eval_loss, heldout_loss, "
        "or a metric of train.eval_metrics_every, such as eval/TASK/exact_match or, as the mean "
        "over tasks, eval/overall/exact_match.",
    )
    best_mode: str = field(
        "auto",
        'Whether the largest or the smallest value is the best. "auto": the smallest of a loss, '
        "the largest of anything else.",
        choices=("auto", "max", "min"),
    )
    early_stopping_patience: int = field(
        0,
        "The run ends after this many evaluations in a row without a better train.best_metric; 0: "
        "only after its last step.",
        minimum=0,
    )
    damaged_checkpoint: str = field(
        "previous",
        "What happens if the newest checkpoint is damaged when a run is resumed: the run resumes "
        'from the one before it, with a warning ("previous"), or it ends ("error").',
        choices=("previous", "error"),
    )
    eval_every: int = field(
        500, "Steps between computations of the eval loss; 0: only at the end.", minimum=0
    )
    eval_rows: int = field(256, "Most rows that an eval loss is computed from; 0: all.", minimum=0)
    eval_metrics_every: int = field(
        0,
        "Steps between evaluations of answers with the metrics of each task, on the sets of "
        "evaluation.sets; the first is before step 1. 0: none while the run trains.",
        minimum=0,
    )
    eval_metrics_examples: int = field(
        32, "Examples of each task, a fixed subset by seed, for eval_metrics_every.", above=0
    )
    preview_every: int = field(
        0, "Steps between answers to fixed prompts; 0: only at step 0 and at the end.", minimum=0
    )
    preview_prompts: int = field(4, "Number of fixed prompts; 0: no previews.", minimum=0)
    max_bad_steps: int = field(
        20,
        "The run ends after this many steps in a row whose loss or gradient is not finite; "
        "meanwhile nothing is saved.",
        above=0,
    )
    track: tuple[str, ...] = field(
        (),
        "Experiment trackers that receive the metrics besides TensorBoard's event files. Each "
        "needs the extra package of its name.",
        choices=("wandb", "mlflow", "trackio"),
    )
    report: bool = field(
        True,
        "Whether the run keeps a page about itself, report.html in its workdir: renewed after "
        "evaluations as long as that takes less than 1% of the time, and at the end.",
    )
    compile_cache: str = field("", "Folder of JAX's compilation cache; empty: none.")
    peak_tflops: float = field(
        0.0,
        "Peak of one device, for model FLOP utilization; 0: measured with a matrix product.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Scores on unseen examples: generated answers, or the likeliest of given choices."""

    examples: int = field(0, "Examples per task; 0: no such evaluation.", minimum=0)
    sets: tuple[str, ...] = field(
        ("eval", "heldout"),
        "Mixtures that are evaluated when training ends: data.eval_mixture, data.heldout_mixture.",
        choices=("eval", "heldout"),
    )
    batch_size: int = field(64, "Prompts, or choices, per batch.", above=0)
    max_new_tokens: int = field(64, "Most tokens of an answer.", above=0)
    num_beams: int = field(
        1, "Beams of the search for an answer; 1: greedy. Each takes a row of batch_size.", above=0
    )
    length_penalty: float = field(
        1.0,
        "The power of beam search's length penalty; above 0 prefers longer answers. T5: 0.6.",
        minimum=0,
    )
    beam_rules: str = field(
        "transformers",
        "What is raised to that power, and when a search ends: the length n as in transformers, or "
        "(5 + n) / 6 as in T5X.",
        choices=("transformers", "t5x"),
    )
    length_normalize: bool = field(
        False,
        "Whether choices are ranked by the mean of their tokens' log-probabilities, instead of the "
        "sum.",
    )
    stop_ids: tuple[int, ...] = field(
        (),
        "Token ids that end an answer besides the format's. Empty: those of the released model in "
        "model.init_from, if there are any.",
        minimum=0,
    )


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; one axis may be -1, which takes what is left."""

    data: int = field(
        -1,
        "Data parallelism: each device has all parameters and some rows.",
        minimum=1,
        also=-1,
    )
    fsdp: int = field(
        1,
        "Fully sharded data parallelism: parameters are sharded as well as rows.",
        minimum=1,
        also=-1,
    )
    expert: int = field(
        1,
        "Expert parallelism: the experts of a mixture are sharded as well as rows; a divisor of "
        "model.n_experts.",
        minimum=1,
        also=-1,
    )
    tensor: int = field(
        1,
        "Tensor parallelism: heads and feed-forward layers are sharded.",
        minimum=1,
        also=-1,
    )
    sequence: int = field(
        1, "Sequence parallelism: the positions of a row are sharded.", minimum=1, also=-1
    )
