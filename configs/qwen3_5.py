"""Qwen3.5 on your own JSON lines: `--config configs/qwen3_5.py:SIZE,DATA,CHECKPOINT`.

SIZE is 0.8b, 2b, 4b, 9b, 27b, or 35b-a3b. DATA is as in configs/jsonl.py, CHECKPOINT a folder with
the model, such as Qwen/Qwen3.5-4B, whose text part is trained. `ift plan` needs neither of them.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.model_shapes import set_model_shape


def get_config(argument: str = "4b") -> ConfigDict:
    """Returns the run of "SIZE", "SIZE,DATA" or "SIZE,DATA,CHECKPOINT"."""
    size, _, rest = argument.partition(",")
    path, _, checkpoint = rest.partition(",")
    config = default_config("decoder")
    config.data.modules = ("tasks.jsonl",)
    config.data.root = path or "data.jsonl"
    config.data.mixture = "jsonl"
    config.data.max_length = 4096
    config.tokenizer.path = "" if checkpoint else "Qwen3.5/tokenizer.json"
    set_model_shape(config, f"qwen3.5-{size}")
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.warmup_ratio = 0.03
    config.train.batch_size = 32
    config.train.epochs = 2.0
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
