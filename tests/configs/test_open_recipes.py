"""The recipes of open mixtures expand to the published numbers, beside those of a dry run."""

from pathlib import Path

import pytest

from configs.open_sft import RECIPES
from ift_jax.config import files as config_file

# Clip norm, warm-up steps, warm-up ratio, final ratio, packed, trained roles, mixture.
PUBLISHED = {
    "olmo3_instruct_7b": (1.0, 200, 0, 0, True, 1, "dolci_instruct"),
    "olmo3_instruct_32b": (1.0, 200, 0, 0, True, 1, "dolci_instruct"),
    "olmo3_think_7b": (1.0, 200, 0, 0, True, 1, "dolci_think_7b"),
    "olmo3_think_32b_1e-4": (1.0, 200, 0, 0, True, 1, "dolci_think_32b"),
    "olmo3_think_32b_5e-5": (1.0, 200, 0, 0, True, 1, "dolci_think_32b"),
    "smol_smoltalk_135m": (1.0, 0, 0.1, 0, False, 1, "smol_smoltalk"),
    "smol_smoltalk_360m": (1.0, 0, 0.1, 0, False, 1, "smol_smoltalk"),
    "openr1_distill_7b": (0.2, 0, 0.03, 0.1, False, 4, "mixture_of_thoughts"),
    "magpie_8b": (1.0, 100, 0, 0, True, 1, "magpie"),
    "openthinker_7b": (1.0, 0, 0.1, 0, False, 1, "openthoughts_114k"),
    "openthinker_32b": (1.0, 0, 0.1, 0, False, 1, "openthoughts_114k"),
    "openthinker3_7b": (1.0, 0, 0.1, 0, False, 1, "openthoughts3"),
    "nemotron_v1": (1.0, 800, 0, 0, True, 1, "nemotron_v1"),
    "nemotron_v2": (1.0, 800, 0, 0, True, 1, "nemotron_v2"),
    "hermes4_length_control": (1.0, 0, 0.03, 0, True, 1, "hermes4_length_control"),
    "nanochat": (1.0, 0, 0, 0, True, 1, "nanochat_sft"),
}
PAGE = Path("docs/systems/open_mixtures.md")
# What the page calls a number of a recipe.
SAID = {
    "checkpoint": "checkpoint", "template": "template", "max_length": "row", "batch_size": "batch",
    "epochs": "epochs", "learning_rate": "rate", "schedule": "schedule",
    "final_ratio": "schedule", "warmup_steps": "warm-up", "warmup_ratio": "warm-up",
    "clip_norm": "clip", "packs": "packing",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    config = config_file.load(f"configs/open_sft.py:{name},/models/base")
    optimizer = config.optimizer
    assert PUBLISHED[name] == (
        optimizer.clip_norm,
        optimizer.warmup_steps,
        optimizer.warmup_ratio,
        optimizer.final_ratio,
        config.data.pack,
        len(config.format.train_roles),
        config.data.mixture,
    )
    assert config.model.init_from == "/models/base"
    assert (config.data.split, optimizer.weight_decay) == ("all", 0.0)
    assert optimizer.keep_state == (name == "nanochat")


def test_the_table_has_every_recipe():
    assert set(RECIPES) == set(PUBLISHED)


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.ours])
def test_the_page_says_which_numbers_are_no_published_ones(name):
    recipe = RECIPES[name]
    assert set(recipe.ours) <= set(recipe._fields)
    choices = PAGE.read_text(encoding="utf-8").partition("### Our choices")[2].partition("## ")[0]
    rows = [line.split(" | ") for line in choices.splitlines() if line.startswith("| ")]
    (said,) = [row[-1].rstrip(" |") for row in rows if f"`{name}`" in row[0]]
    assert set(said.split(", ")) == {SAID[field] for field in recipe.ours}


def test_nanochat_is_constant_and_then_falls_in_the_last_half():
    optimizer = config_file.load("configs/open_sft.py:nanochat").optimizer
    assert (optimizer.schedule, optimizer.decay_ratio, optimizer.decay_shape) == (
        "wsd", 0.5, "linear",
    )  # fmt: skip


def test_smollm3_is_two_stages():
    mid, sft = config_file.load_stages("configs/smollm3.py:3b,/models/base")
    for stage in (mid, sft):
        config = stage.config
        assert (config.train.batch_size, config.train.epochs, config.data.pack) == (128, 5, True)
        assert (config.optimizer.learning_rate, config.optimizer.schedule) == (2e-5, "cosine")
        assert (config.optimizer.final_ratio, config.optimizer.warmup_ratio) == (0.1, 0.03)
        assert (config.optimizer.clip_norm, config.optimizer.keep_state) == (0.2, False)
    assert (mid.name, mid.config.data.mixture, mid.config.data.max_length) == (
        "mid", "smollm3_mid", 32_768,
    )  # fmt: skip
    assert (sft.name, sft.config.data.mixture, sft.config.data.max_length) == (
        "sft", "smollm3_sft", 65_536,
    )  # fmt: skip
    assert len(mid.config.format.train_roles) == 4 and mid.config.format.template == "chatml"
    assert sft.config.format.train_roles == ("assistant",)
    assert mid.config.model.init_from == "/models/base"
