r"""A chat model finetuned on published tasks, and scored on held-out ones, in minutes of one core.

    ift sweep --config benchmarks/classification_run.py:CHECKPOINT --workdir runs/smollm2_tasks \
        --config.data.root=FOLDER --grid data.max_tasks=1,4,16 --seeds 0,1,2

CHECKPOINT is a Hugging Face folder such as SmolLM2-135M-Instruct; `benchmarks.classification_tasks`
says what FOLDER holds. Rows are short and steps few, because one core trains some 70 tokens of such
a model a second.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config(checkpoint: str = "runs/smollm2_135m_instruct") -> ConfigDict:
    """Returns the run from a checkpoint."""
    config = default_config("decoder")
    config.model.init_from = checkpoint
    config.format.template = "chatml"  # The model's own, but for a system turn of 20 tokens.
    config.data.modules = ("benchmarks.classification_tasks",)
    config.data.mixture = "classification_train"
    config.data.heldout_mixture = "classification_heldout"
    config.data.max_length = 256
    config.optimizer.learning_rate = 2e-4
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_ratio = 0.1
    config.optimizer.b2 = 0.95
    config.train.steps = 20
    config.train.batch_size = 1  # About four examples.
    config.train.log_every = 4
    config.train.save_every = 0
    config.train.eval_every = 0
    config.train.eval_rows = 4
    config.train.preview_prompts = 0
    config.train.report = False
    config.evaluation.sets = ("heldout",)
    config.evaluation.examples = 48
    return config
