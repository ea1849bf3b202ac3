"""The compilers know the flags of launch/xla_flags.sh; they would exit at an unknown one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "xla_flags.sh"
COMPILE = """
import jax, jax.numpy as jnp, numpy as np, sys
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
devices = topologies.get_topology_desc(platform="tpu", topology_name=sys.argv[1]).devices
cut = NamedSharding(Mesh(np.array(devices), ("x",)), P("x", None))
x = jax.ShapeDtypeStruct((256, 256), jnp.bfloat16, sharding=cut)
jax.jit(lambda a, b: a @ b, out_shardings=cut).lower(x, x).compile()
"""
needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu, which reads the TPU flags, is not installed",
)


def run(chip, code, *arguments, **variables):
    command = f'. {SCRIPT} {chip}; exec "$@"'
    fixed = {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    return subprocess.run(
        ["bash", "-c", command, "-", sys.executable, "-c", code, *arguments],
        env=environment | fixed | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


@needs_libtpu
@pytest.mark.parametrize(("chip", "topology"), [("v5p", "v5p:2x2x1"), ("v6e", "v6e:2x2")])
def test_the_tpu_compiler_accepts_them(chip, topology):
    result = run(chip, COMPILE, topology)
    assert result.returncode == 0, result.stderr[-2000:]


@needs_libtpu
def test_the_tpu_compiler_rejects_an_unknown_flag():
    result = run("v5e", COMPILE, "v5e:2x2", LIBTPU_INIT_ARGS="--xla_tpu_no_such_flag=true")
    assert "no_such_flag" in result.stderr and result.returncode != 0


def test_gpu_flags_and_an_unknown_chip():
    code = "import os, jax; jax.devices(); print(os.environ['XLA_FLAGS'])"
    result = run("gpu", code, XLA_FLAGS="--xla_gpu_autotune_level=1")
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.startswith("--xla_gpu_autotune_level=1 --xla_gpu_enable_latency")
    assert "expected v4, v5e, v5p, v6e or gpu; got 'v9'" in run("v9", "pass").stderr
