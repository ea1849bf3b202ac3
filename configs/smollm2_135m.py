r"""SmolLM2-135M-Instruct finetuned on Natural Instructions, on a CPU: 40 minutes on two cores.

    launch/smollm2.sh train --config.data.root=<folder with splits/default and tasks>

`launch/smollm2.sh` fetches the weights and makes `runs/smollm2_135m_instruct`, which the run
starts from. Every parameter is trained, in float32, with the model's own chat template: one user
turn with Tk-Instruct's prompt (arXiv:2204.07705), one answer. Training sees about a third of an
epoch of the official train list's tasks; the scores are on tasks of the test list, which it
never sees. `docs/smollm2.md` has the figures before and after.
"""

from ml_collections import ConfigDict

from ift_jax.config.files import default_config


def get_config() -> ConfigDict:
    """Returns the run."""
    config = default_config("decoder")
    config.model.init_from = "runs/smollm2_135m_instruct"
    config.format.template = "model"
    config.data.modules = ("tasks.natural_instructions.tasks",)
    config.data.mixture = "natural_instructions_train"
    config.data.eval_split = "validation"
    config.data.heldout_mixture = "natural_instructions_heldout"
    config.data.heldout_split = "test"
    config.data.max_length = 1024  # Prompts are never cut: their end holds the question.
    config.data.max_dropped_fraction = 1.0  # Dropped examples are counted: `ift inspect`.
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "linear"
    config.optimizer.warmup_ratio = 0.1
    config.optimizer.b2 = 0.95
    config.train.steps = 100
    config.train.batch_size = 2
    config.train.eval_rows = 16
    config.train.save_every = 25
    config.train.max_to_keep = 1
    config.evaluation.examples = 60
    config.evaluation.sets = ("heldout",)
    config.evaluation.max_new_tokens = 64
    config.evaluation.batch_size = 16
    return config
