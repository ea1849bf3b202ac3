r"""Tülu 2 (Ivison et al. 2023, arXiv:2311.10702): Llama 2 on the Tülu 2 mixture.

    ift train --config configs/tulu2.py:7b,LLAMA2_7B --workdir runs/tulu2 --config.data.root=DATA

LLAMA2_7B is a folder with meta-llama/Llama-2-7b-hf (for 70b, Llama-2-70b-hf). The numbers are the
paper's and those of the fork of EasyLM that trained the models; the 70B model's learning rate is
half of the 7B model's. Where public sources disagree:

- open-instruct's tulu2_7b_remix.yaml has 3 epochs of 4,096 tokens. It says itself that the model
  was trained elsewhere, on TPUs. The checkpoint's number, 20,384, counts microsteps:
  2 epochs x 326,154 / 32.
- Upstream EasyLM averages the loss of each example. The fork averages over the tokens of a
  microbatch of 32 ("changed to match hf implementation" in its jax_utils.py), then over the four.
  Here it is the mean over all tokens of the batch.
- Llama 2 was made for 4,096 positions. Rows of 8,192 exceed them, with RoPE unchanged.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape
from ift_jax.config.recipe_arguments import size_and_checkpoint

LEARNING_RATES = {"7b": 2e-5, "70b": 1e-5}


def get_config(argument: str = "7b") -> ConfigDict:
    """Returns the run of "SIZE" or "SIZE,CHECKPOINT"."""
    size, checkpoint = size_and_checkpoint(argument, LEARNING_RATES)
    config = default_config("decoder")
    config.data.modules = ("tasks.tulu",)
    config.data.mixture = "tulu2_sft"
    config.data.split = "all"  # The whole release; "train" keeps the rows of the eval loss out.
    config.format.template = "tulu"
    config.format.train_on = "all"  # Every assistant turn, with its EOS.
    config.data.max_length = 8192
    config.data.pack = False  # A row is a conversation: the batch is 128 conversations.
    config.data.over_length = "drop"  # The original cut the ends of long conversations off.
    config.tokenizer.path = "" if checkpoint else f"Llama-2-{size}-hf/tokenizer.model"
    set_model_shape(config, f"llama-2-{size}")
    config.model.max_length = 8192
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = LEARNING_RATES[size]
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.0
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.b2 = 0.95  # As clip_norm, EasyLM's default; the source was not read again.
    config.optimizer.clip_norm = 1.0
    config.loss.normalization = "tokens"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 4
    config.train.epochs = 2.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
