"""The accelerator types of launch/tpu_types.py, as gcloud and XPK name them."""

import argparse
import sys

import pytest

from tests.launch.fakes import ROOT

sys.path.append(str(ROOT / "launch"))  # The launchers are scripts, not a package.
import tpu_types  # noqa: E402

# From the tables of docs.cloud.google.com/tpu/docs and of XPK.
EXIST = """
    v2-8 v2-512 v3-8 v3-2048 v4-8 v4-64 v4-128 v4-384 v4-4096 v5litepod-1 v5litepod-4 v5litepod-16
    v5litepod-256 v5p-8 v5p-16 v5p-32 v5p-64 v5p-640 v5p-12288 v6e-1 v6e-8 v6e-256 tpu7x-2 tpu7x-8
    tpu7x-128
"""


@pytest.mark.parametrize("name", EXIST.split())
def test_the_published_types_are_taken(name):
    assert tpu_types.accelerator_type(name, list(tpu_types.SIZES)) == name


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("v6e-7", "there is no slice of 7 chips; the nearest are v6e-4 and v6e-8"),
        ("v6e-512", "the nearest is v6e-256"),
        ("v5p-4", "no slice of 4 cores, two of which are a chip; the nearest is v5p-8"),
        ("v5p-100", "the nearest are v5p-64 and v5p-128"),
        ("v3-16", "the nearest are v3-8 and v3-32"),
        ("v5e-8", "it is called v5litepod-8"),
        ("v5e-7", "the nearest are v5litepod-4 and v5litepod-8"),
        ("v5-lite-8", "it is called v5litepod-8"),
        ("V6E-8", "it is called v6e-8"),
        ("v6e-08", "it is called v6e-8"),
        ("v7x-8", "it is called tpu7x-8"),
        ("h100-8", "is not VERSION-SIZE with a version of v2, v3,"),
        ("v6e", "is not VERSION-SIZE"),
        ("v6e-²", "is not VERSION-SIZE"),
    ],
)
def test_others_are_refused_and_the_nearest_is_named(name, said):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        tpu_types.accelerator_type(name, list(tpu_types.SIZES))
    assert said in str(error.value) and repr(name) in str(error.value)


def test_a_host_has_four_or_eight_chips():
    single = ["v2-8", "v3-8", "v4-8", "v5litepod-8", "v5p-8", "v6e-8", "v6e-1"]
    assert not any(map(tpu_types.has_several_hosts, single))
    assert all(map(tpu_types.has_several_hosts, ["v4-16", "v5litepod-16", "v3-32"]))
