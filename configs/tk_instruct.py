r"""Tk-Instruct (Wang et al. 2022, arXiv:2204.07705; scripts/train_tk_instruct.sh).

    ift train --config configs/tk_instruct.py:3b,CHECKPOINT --workdir runs/tk_instruct_3b \
        --config.data.root=<github.com/allenai/natural-instructions> \
        --config.tokenizer.path=<T5's spiece.model>

| | 3b | 11b |
|---|---|---|
| CHECKPOINT | google/t5-xl-lm-adapt | google/t5-xxl-lm-adapt |
| lengths | 1,024 / 128, not packed | 1,024 / 128, packed |
| batch | 16 instances: 1 x 2 accumulated x 8 GPUs | 2^20 tokens: 1,024 rows of 1,024 |
| length | 2 epochs | 1,000 steps |
| optimizer | AdamW, constant 5e-5, no decay | Adafactor, constant 1e-5 |
| ROUGE-L | 54.3 | 60.07 |

Both train on Super-NI's English train list, 100 instances a task, with the definition and 2
positive examples. The scores are the README's, over 100 instances of each of 119 held-out tasks.

The script of the 3B run does not say the number of GPUs. Its effective batch depended on that
number, which is why others did not reach the score (issues 10 and 20 of its repository). The 11B
model was trained with Google's T5 code on TPUs, for which no script is public; its numbers are the
paper's, unverified. Adafactor's rate is relative to the scale of the parameters, so it does not
compare with AdamW's; it was chosen from 1e-5 to 1e-3.

Demonstrations fit 4,000 characters here, where the original counts 1,024 of the model's tokens;
`NaturalInstructionsOptions(tokenizer=...)` does the same. Instances whose answer is longer than 128
tokens are dropped and counted, where the original cuts the answer. A task of which nothing is left
is an error (then raise data.targets_length). For the paper's five-way mix: data.modules
"tasks.natural_instructions.encodings", data.mixture "natural_instructions_five_way_train" and its
`_heldout`.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

SHAPES = {"3b": "t5-v1_1-xl", "11b": "t5-v1_1-xxl"}


def get_config(argument: str = "3b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, SHAPES)
    config = default_config("encoder_decoder")
    config.data.modules = ("tasks.natural_instructions.tasks",)
    config.data.mixture = "natural_instructions_train"
    config.data.eval_split = "validation"
    config.data.heldout_mixture = "natural_instructions_heldout"
    config.data.heldout_split = "test"
    config.data.inputs_length = 1024
    config.data.targets_length = 128
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Whole tasks hold long passages; counted, and shown.
    config.data.variants = 2  # Each epoch draws its own reference where there are several.
    config.format.template = "plain"
    config.format.input_eos = True
    config.tokenizer.path = "spiece.model"  # T5's vocabulary: beside the released checkpoints.
    config.tokenizer.extra_ids = 100
    set_model_shape(config, SHAPES[size])
    config.model.init_from = checkpoint
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.schedule = "constant"
    if size == "3b":
        set_adamw_epochs(config)
    else:
        set_adafactor_steps(config)
    config.evaluation.examples = 100
    config.evaluation.sets = ("heldout",)
    config.evaluation.max_new_tokens = 128
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config


def set_adamw_epochs(config: ConfigDict) -> None:
    """Sets the 3B run's optimizer and length: those of its script."""
    config.data.pack = False
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 5e-5  # Chosen from 1e-5 to 1e-3.
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.loss.normalization = "tokens"
    config.train.batch_size = 16
    config.train.epochs = 2.0


def set_adafactor_steps(config: ConfigDict) -> None:
    """Sets the 11B run's optimizer and length: the paper's, trained with Google's T5 code."""
    config.data.pack = True
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.clip_norm = 0.0  # Adafactor itself clips each update.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size = 0
    config.train.batch_tokens = 2**20
    config.train.steps = 1000
