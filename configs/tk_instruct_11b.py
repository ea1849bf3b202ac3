"""Tk-Instruct 11B (Wang et al. 2022, arXiv:2204.07705): data and lengths of the 3B run.

The 11B model was trained with Google's T5 code on TPUs, for which no script is public. From the
paper, unverified: T5 1.1 LM-adapted XXL, batches of 2^20 tokens (1,024 rows of 1,024), 1,000
steps, constant 1e-5 of the grid 1e-5 to 1e-3. That code packs and uses Adafactor, whose rate is
relative to the parameters' scale: it is no AdamW number. ROUGE-L 60.07 (README).
"""

from ml_collections import ConfigDict

from configs import t0_11b, tk_instruct_3b
from ift_jax.config.files import default_config


def get_config() -> ConfigDict:
    """The run."""
    config = default_config("encoder_decoder")
    tk_instruct_3b.set_data(config)
    config.data.pack = True
    t0_11b.set_xxl(config)
    config.model.init_from = ""  # google/t5-xxl-lm-adapt, as a Hugging Face folder.
    config.model.dropout = 0.1
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adafactor"
    config.optimizer.learning_rate = 1e-5
    config.optimizer.schedule = "constant"
    config.optimizer.clip_norm = 0.0  # Adafactor clips each update by itself.
    config.loss.normalization = "sum"
    config.loss.z_loss = 1e-4
    config.train.batch_size, config.train.batch_tokens = 0, 2**20
    config.train.steps = 1000
    config.mesh.data = 1
    config.mesh.fsdp = -1
    return config
