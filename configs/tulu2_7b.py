r"""Tulu 2 7B (Ivison et al. 2023, arXiv:2311.10702): Llama 2 7B on the Tulu 2 mixture.

    ift train --config configs/tulu2_7b.py:LLAMA2_7B --workdir runs/tulu2 --config.data.root=DATA

The numbers are the paper's and those of the fork of EasyLM that trained the models. Where public
sources disagree:

- open-instruct's tulu2_7b_remix.yaml has 3 epochs of 4,096 tokens; it says itself that the
  model was trained elsewhere, on TPUs. The checkpoint's number, 20,384, counts microsteps:
  2 epochs x 326,154 / 32.
- Upstream EasyLM averages the loss of each example; the fork averages over the tokens of a
  microbatch of 32 ("changed to match hf implementation" in its jax_utils.py), then over the four.
  Here it is the mean over all tokens of the batch.
- Llama 2 was made for 4,096 positions; rows of 8,192 go beyond, with RoPE as it is.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def set_recipe(config: ConfigDict) -> None:
    """What both sizes share."""
    config.data.modules = ("tasks.tulu",)
    config.data.mixture = "tulu2_sft"
    config.data.split = "all"  # The whole release; "train" keeps the rows of the eval loss out.
    config.format.template = "tulu"
    config.format.train_on = "all"  # Every assistant turn, with its EOS.
    config.data.max_length = 8192
    config.data.pack = False  # A row is a conversation: the batch is 128 conversations.
    config.data.over_length = "drop"  # The original cut them off at the end.
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.0
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.b2 = 0.95  # As clip_norm EasyLM's default, not read again.
    config.optimizer.clip_norm = 1.0
    config.loss.normalization = "tokens"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 4
    config.train.epochs = 2.0
    config.model.tied_embedding = False
    config.model.dtype, config.model.remat = "bfloat16", "full"
    config.mesh.data, config.mesh.fsdp = 1, -1


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with meta-llama/Llama-2-7b-hf.
    config.tokenizer.path = "" if checkpoint else "Llama-2-7b-hf/tokenizer.model"
    model.vocab_size, model.max_length, model.norm_eps = 32_000, 8192, 1e-5
    model.d_model, model.n_layers, model.d_ff = 4096, 32, 11_008
    model.n_heads, model.n_kv_heads, model.head_dim = 32, 32, 128
    config.optimizer.learning_rate = 2e-5
    return config
