"""Which implementation of attention is chosen."""

import dataclasses
from typing import NamedTuple

import jax
import pytest

from ift_jax.config.checks import check
from ift_jax.config.schema import Config, DecoderConfig
from ift_jax.errors import UserError
from ift_jax.models.attention.implementations import choose_implementation
from ift_jax.sharding import rules


def chosen(requested, length, *, windowed=False, biased=False):
    return choose_implementation(requested, length, length, windowed=windowed, biased=biased)


def test_without_an_accelerator():
    far = 1 << 17
    assert (chosen("auto", 256), chosen("auto", 512, biased=True)) == ("xla", "tiled")
    for length, plain in ((2048, "xla"), (4096, "tiled")):
        assert chosen("auto", length) == "tiled"  # There is no TPU here.
        for kernel in ("splash", "triton"):
            assert chosen(kernel, length, windowed=True) == kernel
            assert chosen(kernel, length, biased=True) == plain
        assert chosen("xla", length) == "xla"
        assert choose_implementation("plain", 1, length, windowed=False, biased=False) == "xla"
    assert chosen("splash", far, windowed=True) == "tiled"
    assert chosen("splash", far) == "splash"
    assert chosen("triton", far, windowed=True) == "triton"


@pytest.mark.parametrize(
    ("capability", "supported"), [("8.0", True), ("12.0", True), ("7.5", False), ("gfx942", False)]
)
def test_on_a_gpu(monkeypatch, capability, supported):
    class Device(NamedTuple):
        compute_capability: str

    monkeypatch.setattr(rules, "platform", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(capability)])
    for windowed in (False, True):
        expected = "triton" if supported else "blockwise"
        assert chosen("auto", 4096, windowed=windowed) == expected
    assert chosen("auto", 512, biased=True) == "xla"


def test_a_name_that_no_implementation_has():
    config = dataclasses.replace(Config(), model=DecoderConfig(attention="cudnn"))
    with pytest.raises(UserError, match="config.model.attention: expected .*splash, triton.*cudnn"):
        check(config)
