"""Your own JSON lines: `--config configs/jsonl.py:data.jsonl` (a file or a folder of them).

A line is {"inputs": ..., "targets": ...}, {"messages": [...]}, {"prompt": ..., "completion":
...} or Alpaca's {"instruction": ..., "input": ..., "output": ...}. One example in twenty is kept
for validation, or name a second file `<name>.validation.jsonl`.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config(path: str = "data.jsonl") -> ConfigDict:
    """Returns a small decoder from scratch; set `model.init_from` to finetune a pretrained model.

    The tokenizer is then the model's; `tokenizer.path` names another one.
    """
    config = default_config("decoder")
    config.data.modules = ("tasks.jsonl",)
    config.data.root = path
    config.data.mixture = "jsonl"
    config.tokenizer.train_vocab_size = 4096
    config.train.epochs = 3.0
    config.optimizer.warmup_ratio = 0.03
    config.evaluation.examples = 20
    return config
