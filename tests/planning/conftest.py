"""Programs that several files look at, compiled once."""

import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.planning.hlo import Module
from tests.made_once import made_once
from tests.planning.compiled import step_program


@pytest.fixture(scope="session")
def fsdp_step():
    """The train step of a small decoder, parameters cut over 16 devices; its mesh and model."""
    program = step_program("v5e:4x4", MeshConfig(data=1, fsdp=16))
    text = made_once(
        "fsdp_step.hlo", lambda path: path.write_text(program.lower().compile().as_text())
    )
    return Module(text.read_text()), program.mesh, program.model
