r"""Open supervised finetuning after Tulu 3, a line of a table each; SmolLM3 is configs/smollm3.py.

    ift train --config configs/open_sft.py:magpie_8b,LLAMA3_8B --workdir runs/magpie \
        --config.data.root=DATA

CHECKPOINT, behind the recipe's name, is the folder that it starts from; without it the recipe can
be shown. docs/systems/open_mixtures.md has the sources of the numbers, what they do not say, and
what differs here.
"""

from typing import NamedTuple

from ml_collections import ConfigDict

from ift_jax.config.files import default_config
from ift_jax.config.recipe_arguments import size_and_checkpoint

ANSWERS = ("assistant",)
EVERYTHING = ("system", "user", "assistant", "tool")


class Recipe(NamedTuple):
    """The published numbers of a recipe, and what stands in for those that are not.

    Attributes:
        mixture: The mixture, of tasks/open_mixtures.
        checkpoint: What the model starts from.
        template: The chat template.
        max_length: Tokens of a row.
        batch_size: Rows of a step; 0: `batch_tokens` decides.
        batch_tokens: Tokens of a step.
        epochs: Epochs of the mixture.
        learning_rate: The peak.
        schedule: After the warm-up.
        final_ratio: Where the schedule ends.
        warmup_steps: Steps of warm-up, or
        warmup_ratio: their share of all steps.
        clip_norm: Largest norm of a gradient.
        packs: Whether conversations share a row.
        train_roles: Whose turns are trained.
        drops: The largest share of examples that may be dropped because they are longer than a row;
            they are counted.
        ours: Which of these no public source states for this recipe; they are our choice.
    """

    mixture: str
    checkpoint: str
    template: str
    max_length: int
    batch_size: int = 0
    batch_tokens: int = 0
    epochs: float = 1.0
    learning_rate: float = 0.0
    schedule: str = "cosine"
    final_ratio: float = 0.0
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    clip_norm: float = 1.0
    packs: bool = True
    train_roles: tuple[str, ...] = ANSWERS
    drops: float = 0.05
    ours: tuple[str, ...] = ()


_OLMO = Recipe(
    "dolci_instruct", "Olmo-3-7B-Think-SFT", "olmo3", 32_768, batch_tokens=2**20, epochs=2.0,
    learning_rate=8e-5, schedule="linear", warmup_steps=200,
)  # fmt: skip
_OLMO_THINK = _OLMO._replace(
    mixture="dolci_think_7b", checkpoint="Olmo-3-1025-7B", learning_rate=5e-5
)
_OLMO_THINK_32B = _OLMO_THINK._replace(
    mixture="dolci_think_32b", checkpoint="Olmo-3-1125-32B", batch_tokens=2**22
)
_SMOL = Recipe(
    "smol_smoltalk", "SmolLM2-135M", "smollm2", 8192, batch_size=128, epochs=2.0,
    learning_rate=1e-3, warmup_ratio=0.1, packs=False,
)  # fmt: skip
_OPEN_THINKER = Recipe(
    "openthoughts_114k", "Qwen2.5-7B-Instruct", "qwen2.5", 16_384, batch_size=96, epochs=3.0,
    learning_rate=1e-5, warmup_ratio=0.1, packs=False, drops=1.0, ours=("packs",),
)  # fmt: skip
# The numbers are those of Nemotron 3 Nano, but for its rows of 262,144 tokens and 13,000 steps.
_NEMOTRON = Recipe(
    "nemotron_v1", "Qwen3-8B-Base", "qwen3", 32_768, batch_size=64, learning_rate=5e-5,
    warmup_steps=800, drops=1.0,
    ours=(
        "checkpoint", "template", "max_length", "batch_size", "epochs", "learning_rate", "schedule",
        "final_ratio", "warmup_steps", "clip_norm", "packs",
    ),
)  # fmt: skip
RECIPES = {
    "olmo3_instruct_7b": _OLMO,
    "olmo3_instruct_32b": _OLMO._replace(
        checkpoint="Olmo-3-32B-Think-SFT", batch_tokens=2**22
    ),
    "olmo3_think_7b": _OLMO_THINK,
    # Two runs, which were merged linearly: `ift merge`.
    "olmo3_think_32b_1e-4": _OLMO_THINK_32B._replace(learning_rate=1e-4),
    "olmo3_think_32b_5e-5": _OLMO_THINK_32B._replace(learning_rate=5e-5),
    "smol_smoltalk_135m": _SMOL,
    "smol_smoltalk_360m": _SMOL._replace(checkpoint="SmolLM2-360M"),
    # The checkpoint is Qwen2.5-Math-7B with a RoPE theta of 300,000 in its config.json.
    "openr1_distill_7b": Recipe(
        "mixture_of_thoughts", "Qwen2.5-Math-7B-RoPE-300k", "chatml", 32_768, batch_size=128,
        epochs=5.0, learning_rate=4e-5, final_ratio=0.1, warmup_ratio=0.03, clip_norm=0.2,
        packs=False, train_roles=EVERYTHING,
    ),
    "magpie_8b": Recipe(
        "magpie", "Meta-Llama-3-8B", "llama3", 8192, batch_size=32, epochs=2.0,
        learning_rate=2e-5, warmup_steps=100,
    ),
    "openthinker_7b": _OPEN_THINKER,
    "openthinker_32b": _OPEN_THINKER._replace(checkpoint="Qwen2.5-32B-Instruct"),
    "openthinker3_7b": _OPEN_THINKER._replace(
        mixture="openthoughts3", batch_size=512, epochs=5.0, learning_rate=8e-5,
        ours=("packs", "warmup_ratio"),
    ),
    "nemotron_v1": _NEMOTRON,
    "nemotron_v2": _NEMOTRON._replace(mixture="nemotron_v2"),
    # A row has room for a thought of 30,000 tokens: the 40,960 of Hermes 4 14B's context.
    "hermes4_length_control": Recipe(
        "hermes4_length_control", "Hermes-4-14B-stage-1", "chatml", 40_960, batch_size=64,
        learning_rate=5e-6, warmup_ratio=0.03,
        ours=(
            "batch_size", "epochs", "learning_rate", "schedule", "final_ratio", "warmup_ratio",
            "clip_norm",
        ),
    ),
    # The rate is 0.8 of this project's for fresh weights: nanochat's are for its scale of Muon.
    "nanochat": Recipe(
        "nanochat_sft", "runs/nanochat_base", "chatml", 2048, batch_tokens=2**19,
        learning_rate=0.8e-3, schedule="wsd",
    ),
}  # fmt: skip


def get_config(argument: str = "olmo3_instruct_7b") -> ConfigDict:
    """Returns the run of "RECIPE" or "RECIPE,CHECKPOINT"."""
    name, checkpoint = size_and_checkpoint(argument, RECIPES)
    recipe = RECIPES[name]
    config = default_config("decoder")
    config.data.modules = ("tasks.open_mixtures.tasks",)
    config.data.mixture = recipe.mixture
    config.data.split = "all"  # Every row; "train" keeps one in two hundred for the eval loss.
    config.data.max_length = recipe.max_length
    config.data.pack = recipe.packs
    config.data.max_dropped_fraction = recipe.drops
    config.format.template = recipe.template
    config.format.train_roles = recipe.train_roles
    config.model.init_from = checkpoint or recipe.checkpoint
    config.model.dtype = "bfloat16"
    config.model.remat = "full"
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = recipe.learning_rate
    config.optimizer.schedule = recipe.schedule
    config.optimizer.final_ratio = recipe.final_ratio
    config.optimizer.warmup_steps = recipe.warmup_steps
    config.optimizer.warmup_ratio = recipe.warmup_ratio
    config.optimizer.clip_norm = recipe.clip_norm
    config.train.batch_size = recipe.batch_size
    config.train.batch_tokens = recipe.batch_tokens
    config.train.epochs = recipe.epochs
    config.mesh.data = 1
    config.mesh.fsdp = -1
    if name == "nanochat":
        config.optimizer.name = "muon"
        config.optimizer.keep_state = True  # The moments of pretraining go on.
        config.optimizer.decay_ratio = 0.5
    return config
