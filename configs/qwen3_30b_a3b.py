"""Qwen3-30B-A3B on your own JSON lines: `--config configs/qwen3_30b_a3b.py:DATA,CHECKPOINT`.

DATA is as in configs/jsonl.py, CHECKPOINT a folder with Qwen/Qwen3-30B-A3B. The mesh is that of 64
TPU v5p chips: the experts over 8 of them, everything over the other 8 as well.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape


def get_config(argument: str = "data.jsonl") -> ConfigDict:
    """Returns the run of "DATA" or "DATA,CHECKPOINT"."""
    path, _, checkpoint = argument.partition(",")
    config = default_config("decoder")
    config.data.modules = ("tasks.jsonl",)
    config.data.root = path
    config.data.mixture = "jsonl"
    config.data.max_length = 4096
    config.tokenizer.path = "" if checkpoint else "Qwen3-30B-A3B/tokenizer.json"
    set_model_shape(config, "qwen3-30b-a3b")
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_ratio = 0.03
    config.loss.router_balance = 1e-3  # The release's router_aux_loss_coef.
    config.train.batch_size = 64
    config.train.epochs = 2.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    config.mesh.expert = 8
    return config
