"""QLoRA of Llama-3.1-8B on one chip: `--config configs/qlora.py:DATA,CHECKPOINT`.

DATA is as in configs/jsonl.py, CHECKPOINT a folder with meta-llama/Llama-3.1-8B. The numbers are
those of QLoRA's 7B models (Dettmers et al. 2023, arXiv:2305.14314, appendix B): adapters of rank
64 and dropout 0.1 on every projection, 16 examples a step at a constant 2e-4, gradients clipped at
0.3. The rows here are packed, so a step has more examples.

One difference: the scales of the 4-bit blocks are not quantized once more ("double quantization"),
which would save 0.37 bits a weight.
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
    config.data.max_length = 2048
    config.tokenizer.path = "" if checkpoint else "Llama-3.1-8B/tokenizer.json"
    set_model_shape(config, "llama-3.1-8b")
    config.model.init_from = checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.lora.rank = 64
    config.lora.alpha = 16.0
    config.lora.dropout = 0.1
    config.lora.quantize = "nf4"
    config.optimizer.learning_rate = 2e-4
    config.optimizer.schedule = "constant"
    config.optimizer.b2 = 0.999
    config.optimizer.clip_norm = 0.3
    config.train.batch_size = 16
    config.train.gradient_accumulation_steps = 16
    config.train.epochs = 2.0
    config.train.preview_prompts = 0  # Generation needs all weights in bfloat16: 15 GiB.
    config.evaluation.examples = 0
    return config
