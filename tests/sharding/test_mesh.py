"""The device mesh: sizes from a config, what is refused, and how it is described."""

import jax
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.errors import UserError
from ift_jax.sharding.mesh import config_sizes, describe_mesh, make_mesh


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [
        (dict(data=-1), dict(data=8, fsdp=1, expert=1, tensor=1, sequence=1)),
        (dict(data=2, fsdp=-1), dict(data=2, fsdp=4, expert=1, tensor=1, sequence=1)),
        (
            dict(data=1, expert=2, tensor=2, sequence=2),
            dict(data=1, fsdp=1, expert=2, tensor=2, sequence=2),
        ),
    ],
)
def test_minus_one_takes_what_the_devices_leave(sizes, wanted):
    mesh = make_mesh(MeshConfig(**sizes))
    assert config_sizes(mesh) == wanted
    assert mesh.shape["fsdp_line"] == 1  # Only a large TPU slice has lines.
    assert sorted(d.id for d in mesh.devices.flat) == [d.id for d in jax.devices()]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (dict(data=-1, fsdp=-1), "config.mesh: sizes .* one of them may be -1"),
        (dict(data=0), "sizes must be positive"),
        (dict(data=-1, fsdp=3), "3 does not divide the 8 devices"),
        (
            dict(data=2, fsdp=2),
            "data 2 x fsdp 2 x expert 1 x tensor 1 x sequence 1 makes 4, but 8 devices",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        make_mesh(MeshConfig(**sizes))


def test_a_mesh_is_described_by_its_larger_axes():
    assert describe_mesh(dict(data=2, fsdp=4, tensor=1)) == "data 2 x fsdp 4"
    assert describe_mesh(dict(data=1, fsdp=1)) == "1 device"
