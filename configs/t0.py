r"""T0 (Sanh et al. 2021, arXiv:2110.08207; training/README.md of its repository).

    ift train --config configs/t0.py:11b,CHECKPOINT --workdir runs/t0 \
        --config.data.root=<templates and rows> --config.tokenizer.path=<T5's spiece.model>

| | |
|---|---|
| sizes | 11b from google/t5-xxl-lm-adapt, 3b from google/t5-xl-lm-adapt (CHECKPOINT) |
| data | P3's BASE templates, each dataset capped at 500,000 / templates (tasks/t0/tasks.py) |
| text | inputs without EOS, targets with it |
| batch | 2^20 tokens: 1,024 packed rows of 1,024 + 256 |
| steps | 12,200 (1,100,000 to 1,112,200) |
| optimizer | Adafactor, constant 1e-3; dropout 0.1 (from the paper, unverified) |
| evaluation | rank classification over `t0_eval_score_eval`; no choice by held-out tasks |

The card of the released T0_3B repeats the 11B run's settings (unverified). For T0+ and T0++ set
`data.mixture` to `t0+_train` or `t0++_train`, and the held-out mixture to the `_eval_score_eval` of
the same name. The original trained with mesh-tensorflow, on a v3-512 with 8-way model parallelism;
`loss` follows T5X's finetuning of the same family (sum, z-loss 1e-4).
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

SHAPES = {"11b": "t5-v1_1-xxl", "3b": "t5-v1_1-xl"}


def get_config(argument: str = "11b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SHAPES)
    config = default_config("encoder_decoder")
    config.data.modules = ("tasks.t0.tasks",)
    config.data.mixture = "t0_train"
    config.data.eval_mixture = "t0_train"
    config.data.eval_split = "validation"
    config.data.heldout_mixture = "t0_eval_score_eval"
    config.data.heldout_split = "validation"
    config.data.inputs_length = 1024
    config.data.targets_length = 256
    config.data.pack = True
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Some of P3's passages are longer; counted, and shown.
    config.format.template = "plain"
    config.format.input_eos = False
    config.tokenizer.path = "spiece.model"  # T5's vocabulary: beside the released checkpoints.
    config.tokenizer.extra_ids = 100
    set_model_shape(config, SHAPES[size])
    config.model.init_from = checkpoint
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0  # Adafactor itself clips each update.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size = 0
    config.train.batch_tokens = 2**20
    config.train.steps = 12_200
    config.train.save_every = 1000  # Not published.
    config.evaluation.examples = 100
    config.evaluation.sets = ("heldout",)
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
