r"""Tulu 3 8B SFT (Lambert et al. 2024, arXiv:2411.15124): Llama 3.1 8B on the Tulu 3 mixture.

    ift train --config configs/tulu3_8b.py:LLAMA31_8B --workdir runs/tulu3 --config.data.root=DATA

The numbers are those of the model card and of the command in open-instruct's docs/tulu3.md (seed
123): 64 processes x 1 x 2 = 128 conversations a step, not packed.

- The loss is the *sum* over tokens (--reduce_loss sum): with a mean within each microbatch the
  tokens of short ones counted more, and the authors measured over 5 points of AlpacaEval. (Of
  the denominators here "tokens" has no such fault either, whatever the microbatches.) The
  option was removed from open-instruct in September 2025 (pull request 1024).
- The original's sum is divided by the 64 processes and 2 accumulated steps. Its DeepSpeed
  configuration leaves clipping on "auto", which accelerate makes a norm of 1.0, and a gradient
  summed over thousands of tokens is nearly always longer, so that this factor goes out.
  (finetune.py's own default is no clipping.)
- tulu3_sft.yaml says "8 GPUs" and accumulates 2 steps, which is 16 a step, and names 128.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def set_recipe(config: ConfigDict) -> None:
    """What both sizes share."""
    config.data.modules = ("tasks.tulu",)
    config.data.mixture = "tulu3_sft"
    config.data.split = "all"  # The whole release; "train" keeps the rows of the eval loss out.
    config.format.template = "tulu"
    config.format.train_on = "all"  # Every assistant turn, with its EOS (<|end_of_text|>).
    config.data.max_length = 4096
    config.data.pack = False  # A row is a conversation: the batch is 128 conversations.
    config.data.over_length = "drop"  # The original cut them off at the end.
    config.optimizer.name = "adamw"
    config.optimizer.schedule = "linear"
    config.optimizer.final_ratio = 0.0
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 1.0
    config.loss.normalization = "sum"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 2
    config.train.epochs = 2.0
    model = config.model
    model.vocab_size, model.max_length, model.norm_eps = 128_256, 131_072, 1e-5
    model.rope_theta, model.rope_scaling, model.rope_factor = 500_000.0, "llama3", 8.0
    model.rope_low_freq_factor, model.rope_high_freq_factor = 1.0, 4.0
    model.rope_original_length = 8192
    model.tied_embedding = False
    model.dtype, model.remat = "bfloat16", "full"
    config.mesh.data, config.mesh.fsdp = 1, -1


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_recipe(config)
    model = config.model
    model.init_from = checkpoint  # A folder with meta-llama/Llama-3.1-8B.
    config.tokenizer.path = "" if checkpoint else "Llama-3.1-8B/tokenizer.json"
    model.d_model, model.n_layers, model.d_ff = 4096, 32, 14_336
    model.n_heads, model.n_kv_heads, model.head_dim = 32, 8, 128
    config.optimizer.learning_rate = 5e-6
    config.seed = 123
    return config
