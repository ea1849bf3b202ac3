"""Programs that several files look at, compiled once."""

import pytest

from ift_jax.config.schema import MeshConfig
from tests.planning.compiled import train_step


@pytest.fixture(scope="session")
def fsdp_step():
    """The train step of a small decoder, parameters cut over 16 devices."""
    return train_step("v5e:4x4", MeshConfig(data=1, fsdp=16))
