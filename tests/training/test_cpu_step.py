"""The train step's program on a CPU: its product library, and what it computes again."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from ift_jax.config.schema import Config, DataConfig, TrainConfig
from ift_jax.sharding import product_library, rules
from ift_jax.training.train_program import TrainProgram
from tests.small_models import ARCHITECTURES

YNNPACK = "ynn_fusion"


def program(remat):
    model = dataclasses.replace(ARCHITECTURES["decoder"], remat=remat)
    config = Config(model=model, train=TrainConfig(batch_size=2), data=DataConfig(max_length=32))
    return TrainProgram.from_config(config, 1, 10, jax.devices()[:1])


def product_text(options):
    a = np.ones((256, 256), np.float32)
    return jax.jit(lambda a: a @ a, compiler_options=options).lower(a).compile().as_text()


def copies_of_moments(compiled):
    """The moments that a program copies whole, which it should update where they are."""
    return re.findall(r" copy\(%state__opt_state___([mn]u\w+)", compiled.as_text())


def test_the_step_multiplies_with_eigen_keeps_products_and_attention_and_updates_in_place():
    lowered = program("auto").lower()
    compiled = lowered.compile()
    assert YNNPACK not in compiled.as_text()
    assert YNNPACK in product_text({})  # Else the test could not fail.
    assert copies_of_moments(compiled) == []
    assert lowered.as_text() == program("minimal").lower().as_text()
    assert lowered.as_text() != program("none").lower().as_text()


def test_an_option_that_the_compiler_does_not_know_is_not_asked_for():
    assert product_library.compiler_takes(tuple(product_library.EIGEN))
    assert not product_library.compiler_takes(("xla_cpu_no_such_option",))


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_an_accelerator_gets_no_option(monkeypatch, platform):
    monkeypatch.setattr(rules, "platform", lambda: platform)
    assert product_library.train_options() == {}


def test_the_users_own_flag_is_kept(monkeypatch):
    flag = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    monkeypatch.setenv("XLA_FLAGS", flag)
    assert product_library.train_options() == {}
