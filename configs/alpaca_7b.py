r"""Alpaca 7B (Taori et al. 2023): LLaMA 7B on 52,002 machine-written instructions.

    ift train --config configs/alpaca_7b.py:LLAMA_7B --workdir runs/alpaca --config.data.root=DATA

LLAMA_7B is a Hugging Face folder of LLaMA 7B; tasks/alpaca.py says what DATA holds. The numbers are
those of the repository's README and train.py. (The 13B model had 1e-5 and 5 epochs.) The original
cut off what was over 512 tokens at the end, with the answer's; here the prompt is cut, and counted.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def set_llama_7b(config: ConfigDict, checkpoint: str) -> None:
    """LLaMA 7B (arXiv:2302.13971), which LIMA's smaller models share."""
    model = config.model
    model.init_from = checkpoint  # A folder with the weights of LLaMA 7B.
    config.tokenizer.path = "" if checkpoint else "llama-7b/tokenizer.model"
    model.vocab_size, model.max_length = 32_000, 2048
    model.d_model, model.n_layers, model.d_ff = 4096, 32, 11_008
    model.n_heads, model.n_kv_heads, model.head_dim = 32, 32, 128
    model.norm_eps, model.tied_embedding = 1e-6, False
    model.dtype, model.remat = "bfloat16", "full"
    config.mesh.data, config.mesh.fsdp = 1, -1


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    config = default_config("decoder")
    set_llama_7b(config, checkpoint)
    config.data.modules = ("tasks.alpaca",)
    config.data.mixture = "alpaca"
    config.data.split = "all"  # As published; "train" keeps the rows of the eval loss out.
    config.format.template = "alpaca"  # The two prompts, with and without an input.
    config.data.max_length = 512
    config.data.pack = False  # A row is an example: the batch is 128 examples.
    config.data.over_length = "truncate-prompt"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-5
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup_ratio = 0.03
    config.optimizer.weight_decay = 0.0
    config.optimizer.b2 = 0.999  # As eps and clip_norm the trainer's default, not stated.
    config.optimizer.clip_norm = 1.0
    # The original averaged the tokens of each of its 32 microbatches of 4, then those.
    config.loss.normalization = "tokens"
    config.train.batch_size = 128
    config.train.gradient_accumulation_steps = 8
    config.train.epochs = 3.0
    return config
