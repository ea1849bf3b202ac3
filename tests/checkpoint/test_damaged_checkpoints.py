"""A damaged checkpoint is refused in one line by everything that reads it."""

import os
import random
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from ift_jax.checkpoint import manager
from ift_jax.checkpoint.load_model import load_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.read_checkpoint import UnreadableCheckpoint, open_arrays
from ift_jax.commands.main import main
from ift_jax.errors import UserError
from tests.small_models import write_workdir

RNG = np.random.default_rng(0)
STATE = {
    "params": {
        "a": jnp.asarray(RNG.standard_normal((40, 30), np.float32)),
        "b": {"w": jnp.asarray(RNG.standard_normal((8, 8)), jnp.bfloat16)},
    },
    "opt_state": (jnp.zeros((40, 30)),),
    "step": jnp.int32(7),
}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def flip_bit(path, bit=None):
    """Flips one bit of a file, by default in its middle."""
    content = bytearray(path.read_bytes())
    bit = 4 * len(content) if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def damage_weights(checkpoint):
    """Replaces a weight where neither Zstandard nor OCDBT notices: they store it as they should.

    A bit flipped in a file may also fall into bytes that nothing refers to, or that the database
    checks itself; which bytes those are depends on the order in which its threads wrote.
    """
    base = f"file://{checkpoint}/default/"
    arrays = open_arrays(str(checkpoint))
    name = next(name for name in sorted(arrays) if name.startswith("params."))
    store = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
    driver = arrays[name].spec().to_json()["driver"]
    array = ts.open({"driver": driver, "kvstore": store}, open=True).result()
    first = (0,) * array.ndim
    weight = array[first].read().result()
    array[first].write(weight + 1).result()
    assert open_arrays(str(checkpoint))[name][first].read().result() == weight + 1


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir with the checkpoints 1 and 2 of `STATE`."""
    workdir = tmp_path_factory.mktemp("saved")
    checkpoints = Checkpoints(str(workdir), keep=2)
    for step in (1, 2):
        checkpoints.save(step, STATE)
    checkpoints.close()
    return workdir


@pytest.fixture
def workdir(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "w")


def test_what_was_saved_is_read_back_whole_or_in_parts(saved):
    checkpoints = Checkpoints(str(saved), read_only=True)
    assert bits(checkpoints.restore(2, STATE)) == bits(STATE)
    part = checkpoints.restore(2, {"params": STATE["params"]})
    assert list(part) == ["params"] and bits(part) == bits(STATE["params"])
    wider = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), STATE["params"])
    converted = checkpoints.restore(2, {"params": wider})["params"]
    assert converted["b"]["w"].dtype == jnp.float32 and bits(converted) == bits(wider)


def test_random_damage_is_refused_or_does_not_matter(workdir, capfd):
    """A flipped bit, a cut, zeros, or a missing file: the same arrays are read, or none."""
    draw = random.Random(0)
    outcomes = {"the same": 0, "refused": 0}
    targets = files(workdir / "checkpoints" / "2")
    checkpoints = Checkpoints(str(workdir), read_only=True)
    for kind in ["flip", "flip", "cut", "zeros", "missing"] * 60:
        path = draw.choice(targets)
        content = path.read_bytes()
        if kind == "missing" or not content:
            path.unlink()
        elif kind == "flip":
            flip_bit(path, draw.randrange(8 * len(content)))
        elif kind == "cut":
            path.write_bytes(content[: draw.randrange(len(content))])
        else:
            start = draw.randrange(len(content))
            path.write_bytes(content[:start] + bytes(8) + content[start + 8 :])
        try:
            assert bits(checkpoints.restore(2, STATE)) == bits(STATE), path
            outcomes["the same"] += 1
        except UnreadableCheckpoint as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
        path.write_bytes(content)
    assert min(outcomes.values()) > 30
    assert capfd.readouterr().err == ""


def test_the_message_names_the_checkpoint_the_array_and_the_one_before(workdir):
    damage_weights(workdir / "checkpoints" / "2")
    with pytest.raises(UnreadableCheckpoint) as error:
        Checkpoints(str(workdir), read_only=True).restore(2, STATE)
    assert str(error.value) == (
        f"{workdir}/checkpoints/2: is damaged (params.a is not what was saved); the one before it "
        "is step 1: name it with --step, or move the damaged folder away"
    )


def test_other_arrays_than_the_config_describes_are_no_damage(saved):
    checkpoints = Checkpoints(str(saved), read_only=True)
    for message, params in {
        "it has no array params.c": {**STATE["params"], "c": jnp.zeros(3)},
        r"its params.a is \(40, 30\), expected \(40, 31\)": {
            **STATE["params"],
            "a": jnp.zeros((40, 31)),
        },
        "it has an array params.b.w": {"a": STATE["params"]["a"]},
    }.items():
        with pytest.raises(UserError, match=f"2: does not fit the config: {message}") as error:
            checkpoints.restore(2, {"params": params})
        assert not isinstance(error.value, UnreadableCheckpoint)


def test_a_checkpoint_without_checksums_is_read_with_one_warning(tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(manager, "with_checksums", lambda parts: parts)
        workdir = write_workdir(tmp_path / "w")
    for _ in range(2):
        load_model(open_model_source(workdir))
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"warning: {workdir}/checkpoints/0: was written without checksums, so damage would go "
        "unnoticed"
    )


COMMANDS = {
    "generate": ["--prompt", "x", "--max-new-tokens", "8"],
    "chat": [],
    "export": ["--output", "OUTPUT"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_reads_a_model_refuses_a_flipped_bit(command, tmp_path, capfd):
    workdir = write_workdir(tmp_path / "w")
    damage_weights(tmp_path / "w" / "checkpoints" / "0")
    flags = [flag.replace("OUTPUT", str(tmp_path / "out")) for flag in COMMANDS[command]]
    capfd.readouterr()
    assert main([command, "--workdir", workdir, *flags]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"error: {workdir}/checkpoints/0: is damaged (params.")
    assert not os.path.exists(tmp_path / "out")
