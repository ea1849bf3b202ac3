"""Makes the model known to lm-evaluation-harness.

Releases of it that read entry points of the group `lm_eval.models` find the model by the one in
`pyproject.toml`, so that its own command works as well. Version 0.4.13 knows only the models that
it ships and those that were registered in the process.
"""

NAME = "ift_jax"
TARGET = "ift_jax.evaluation.harness.model:IftJaxLM"


def register() -> None:
    """Register the model, whose module is imported when it is asked for."""
    from lm_eval.api.registry import model_registry

    if NAME not in model_registry:
        model_registry.register(NAME, target=TARGET)
