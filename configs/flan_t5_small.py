r"""Flan-T5 (Chung et al., arXiv:2210.11416) on the Flan Collection (arXiv:2301.13688).

    ift train --config configs/flan_t5_small.py:CHECKPOINT --workdir runs/flan_t5_small \
        --config.data.root=DATA

CHECKPOINT is a folder of the weights in the table. The five recipes, here and beside this file:

| size | parameters | steps | starts from |
|---|---|---|---|
| small | 80M | 98,000 | google/t5-small-lm-adapt |
| base | 250M | 84,000 | google/t5-base-lm-adapt |
| large | 780M | 64,000 | google/t5-large-lm-adapt |
| xl | 3B | 38,000 | google/t5-xl-lm-adapt |
| xxl | 11B | 14,000 | google/t5-xxl-lm-adapt |

Batch 64 packed rows, constant 5e-4, Adafactor, dropout 0.05: from the paper, unverified. The
steps are confirmed by the names of the released checkpoints (1,198,000 to 1,114,000, of which
1,100,000 are pretraining and LM adaptation). Lengths: the Collection's code says 2,048 / 512 in
`constants.py` and 2,056 / 512 in `run_example.py`; the first is taken. Its 64 are rows, not
tokens: FLAN 2021's 8,192 are tokens.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config

# d_model, d_ff, heads, layers of each stack (T5 1.1), steps.
SIZES = {
    "small": (512, 1024, 6, 8, 98_000),
    "base": (768, 2048, 12, 12, 84_000),
    "large": (1024, 2816, 16, 24, 64_000),
    "xl": (2048, 5120, 32, 24, 38_000),
    "xxl": (4096, 10_240, 64, 24, 14_000),
}


def recipe(size: str, checkpoint: str) -> ConfigDict:
    """The run of a size: small, base, large, xl or xxl."""
    d_model, d_ff, heads, layers, steps = SIZES[size]
    config = default_config("encoder_decoder")
    config.data.modules = ("tasks.flan.collection",)
    config.data.mixture = "flan_collection"
    config.data.inputs_length = 2048
    config.data.targets_length = 512
    config.data.over_length = "truncate-prompt"
    config.data.max_dropped_fraction = 1.0  # Long prompts are cut, as in the original; counted.
    config.data.variants = 4  # Templates, styles and exemplars are drawn anew.
    config.format.template = "plain"
    config.tokenizer.path = "" if checkpoint else "t5/spiece.model"
    config.tokenizer.extra_ids = 100
    config.model.init_from = checkpoint
    config.model.vocab_size = 32_128
    config.model.d_model = d_model
    config.model.d_ff = d_ff
    config.model.n_heads = heads
    config.model.head_dim = 64
    config.model.n_encoder_layers = layers
    config.model.n_decoder_layers = layers
    config.model.dropout = 0.05
    config.model.dtype = "bfloat16"
    config.model.remat = "full" if size in ("xl", "xxl") else "dots"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0
    # T5X sums the loss (loss_normalizing_factor None) and adds z-loss, in its finetuning
    # configuration; Flan-T5's own is not public.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size = 64
    config.train.steps = steps
    config.train.save_every = 2_000
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config


def get_config(checkpoint: str = "") -> ConfigDict:
    """The run."""
    return recipe("small", checkpoint)
