"""A config of three stages over JSON lines, which differ in length, loss, schedule, and optimizer.

The first trains a tokenizer, and the learning rates are known in closed form.
"""

from configs import jsonl
from tests.training import runs


def get_config(path):
    config = jsonl.get_config(path)
    config.train.epochs = 0.0
    config.data.max_length = 64
    config.data.store_dir = str(runs.SHARED / "stores")
    config.model.d_model, config.model.n_layers, config.model.d_ff = 32, 1, 48
    config.model.n_heads, config.model.n_kv_heads, config.model.head_dim = 2, 1, 16
    config.tokenizer.train_vocab_size = 320
    config.train.batch_size = 4
    config.train.log_every, config.train.save_every, config.train.eval_every = 1, 2, 0
    config.train.preview_prompts = 0
    config.train.report = False
    config.train.peak_tflops = 1.0
    config.train.compile_cache = str(runs.SHARED / "compiled")
    config.evaluation.examples = 0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_ratio = 0.0
    config.stages = [
        {
            "name": "mid",
            "format": {"train_roles": ("user", "assistant")},
            "optimizer": {"schedule": "wsd", "warmup_steps": 2, "decay_steps": 3},
            "train": {"steps": 8},
        },
        {
            "name": "sft",
            "data": {"max_length": 80},
            "optimizer": {"schedule": "linear", "keep_state": True, "final_ratio": 0.1},
            "train": {"steps": 6},
        },
        {
            "name": "polish",
            "format": {"train_on": "last"},
            "optimizer": {"schedule": "constant", "learning_rate": 2e-4, "name": "lion"},
            "train": {"steps": 5},
        },
    ]
    return config
