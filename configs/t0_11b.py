r"""T0, 11B (Sanh et al. 2021, arXiv:2110.08207; training/README.md of its repository).

    ift train --config configs/t0_11b.py --workdir runs/t0 --config.data.root=<templates and rows> \
        --config.tokenizer.path=<T5's spiece.model> --config.model.init_from=<T5 1.1 LM XXL>

| | |
|---|---|
| start | T5 1.1 LM-adapted (100k steps), XXL |
| data | P3's BASE templates, each dataset capped at 500,000 / templates (tasks/t0/tasks.py) |
| text | inputs without EOS, targets with it |
| batch | 2^20 tokens: 1,024 packed rows of 1,024 + 256 |
| steps | 12,200 (1,100,000 to 1,112,200) |
| optimizer | Adafactor, constant 1e-3; dropout 0.1 (from the paper, unverified) |
| evaluation | rank classification over `t0_eval_score_eval`; no choice by held-out tasks |

For T0+ and T0++ set `data.mixture` to `t0+_train` or `t0++_train`, and the held-out mixture to the
`_eval_score_eval` of the same name. The original trained with mesh-tensorflow, on a v3-512 with
8-way model parallelism; `loss` follows T5X's finetuning of the same family (sum, z-loss 1e-4).
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config() -> ConfigDict:
    """The run."""
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
    config.model.init_from = ""  # google/t5-xxl-lm-adapt, as a Hugging Face folder.
    set_xxl(config)
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0  # Adafactor clips each update by itself.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size, config.train.batch_tokens = 0, 2**20
    config.train.steps = 12_200
    config.train.save_every = 1000  # Not published.
    config.evaluation.examples = 100
    config.evaluation.sets = ("heldout",)
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config


def set_xxl(config: ConfigDict) -> None:
    """T5 1.1 XXL's shape."""
    config.model.vocab_size = 32_128
    config.model.d_model = 4096
    config.model.d_ff = 10_240
    config.model.n_heads = 64
    config.model.head_dim = 64
    config.model.n_encoder_layers = 24
    config.model.n_decoder_layers = 24
    config.model.activation = "gated_gelu"
    config.model.tied_embedding = False
