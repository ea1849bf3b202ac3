r"""T5 finetuned on a benchmark (Raffel et al. 2020, arXiv:1910.10683, section 3.1.2; T5X's gins).

    ift train --config configs/t5_finetune.py:xl,super_glue --workdir runs/t5 \
        --config.data.root=<folder of rows> --config.model.init_from=<T5 checkpoint>

| | |
|---|---|
| checkpoint | T5 1.1 (small ... xxl) or T5 1.0 (small_1.0 ... 11b_1.0) |
| optimizer | Adafactor, constant 1e-3 |
| batch | 128 packed rows of 512 tokens (65,536 tokens) |
| steps | 2^18, a checkpoint every 5,000, evaluation every 1,000 (T5X) |
| dropout | 0.1 |
| loss | sum over target tokens, z-loss 1e-4, no label smoothing |
| lengths | 512 in; out: GLUE 84, SuperGLUE 62, SQuAD 97, others 512 |

The paper chooses the best checkpoint of each task by its development set; `train.keep_best` keeps
the best by loss. It translates and summarizes with beam search (4 beams, length penalty 0.6), and
answers all else greedily, as the evaluation here does; of "all", which holds both, it is greedy.
T5X cuts inputs and targets that are too long; here inputs are cut, and examples with longer targets
are dropped and counted.

The loss is a sum because T5X's LOSS_NORMALIZING_FACTOR is None; to Adafactor, whose update does not
depend on the gradient's scale, a mean is nearly the same.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.errors import UserError

# T5 1.1 by its size alone, T5 1.0 with "_1.0" behind it.
SHAPES = {size: f"t5-v1_1-{size}" for size in ("small", "base", "large", "xl", "xxl")} | {
    f"{size}_1.0": f"t5-{size}" for size in ("small", "base", "large", "3b", "11b")
}
# Mixture, the mixture that it is evaluated on, and the length of targets.
BENCHMARKS = {
    "glue": ("glue_proportional", "glue_eval", 84),
    "super_glue": ("super_glue_proportional", "super_glue_eval", 62),
    "squad": ("t5_squad", "t5_squad", 97),
    "cnn_dailymail": ("t5_cnn_dailymail", "t5_cnn_dailymail", 512),
    "wmt_ende": ("t5_wmt_ende", "t5_wmt14_ende", 512),
    "wmt15_enfr": ("t5_wmt15_enfr", "t5_wmt14_enfr", 512),
    "wmt16_enro": ("t5_wmt16_enro", "t5_wmt16_enro", 512),
    # Multi-task training of section 3.5.2: examples-proportional, K = 2^19.
    "all": ("t5_all_proportional", "t5_all_proportional", 512),
}


def get_config(run: str = "base,glue") -> ConfigDict:
    """Returns the run of a size and a benchmark, "SIZE,BENCHMARK" or "SIZE" for GLUE."""
    size, _, benchmark = run.partition(",")
    benchmark = benchmark or "glue"
    if size not in SHAPES or benchmark not in BENCHMARKS:
        raise UserError(
            f"--config: expected SIZE,BENCHMARK with a size of {', '.join(SHAPES)} and a benchmark "
            f"of {', '.join(BENCHMARKS)}; got {run!r}"
        )
    config = default_config("encoder_decoder")
    set_model_shape(config, SHAPES[size])
    config.model.dropout = 0.1
    config.model.init_from = ""  # google/t5-v1_1-base, google-t5/t5-base (1.0), and so on.
    config.tokenizer.path = "sentencepiece.model"  # The one of the checkpoint: T5's 32,000 pieces.
    config.tokenizer.extra_ids = 100

    config.format.template = "plain"
    config.format.input_eos = True
    config.data.modules = ("tasks.t5.tasks",)
    config.data.mixture, config.data.eval_mixture, length = BENCHMARKS[benchmark]
    config.data.eval_split = "validation"
    config.data.inputs_length = 512
    config.data.targets_length = length
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Most articles and SuperGLUE passages are cut.
    config.data.pack = True

    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-3  # With Adafactor's parameter scaling.
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    config.loss.normalization = "sum"  # T5X: LOSS_NORMALIZING_FACTOR = None.
    config.loss.z_loss = 1e-4
    config.train.batch_size = 128
    config.train.steps = 2**18
    config.train.save_every = 5000
    config.train.eval_every = 1000
    config.train.keep_best = 1
    config.evaluation.examples = 1000
    config.evaluation.sets = ("eval",)
    config.evaluation.max_new_tokens = length
    if benchmark == "cnn_dailymail" or benchmark.startswith("wmt"):  # Section 3.1.2.
        config.evaluation.num_beams = 4
        config.evaluation.length_penalty = 0.6
        config.evaluation.beam_rules = "t5x"
    return config
