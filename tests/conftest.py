"""Set-up of all tests: eight CPU devices, quiet TensorFlow, no hub, the same random examples.

The environment variables must be set before JAX or TensorFlow is imported, and therefore before any
test module is.
"""

import atexit
import collections
import contextlib
import gc
import importlib.metadata
import os
import shutil
import sys
import tempfile

import hypothesis
import pytest

_FLAGS = {
    "--xla_force_host_platform_device_count": 8,
    # On a busy machine with two cores, eight devices may arrive late at a collective; XLA would
    # end the process after 40 seconds.
    "--xla_cpu_collective_call_terminate_timeout_seconds": 600,
    "--xla_cpu_collective_timeout_seconds": 600,
    # Tests compile hundreds of tiny programs that run once.
    "--xla_backend_optimization_level": 0,
    "--xla_llvm_disable_expensive_passes": "true",
}
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # XLA's older CPU emitters compile in half the time; later versions do not have them.
    _FLAGS["--xla_cpu_use_fusion_emitters"] = "false"
    # One LLVM module per program instead of 32 takes a fifth less CPU time.
    _FLAGS["--xla_cpu_parallel_codegen_split_count"] = 1
_given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = " ".join(
    [_given, *(f"{flag}={value}" for flag, value in _FLAGS.items() if flag not in _given)]
).strip()
# XLA's pool needs more threads than there are devices. Otherwise the devices that wait in a
# collective can hold all threads while a late one needs another thread for its matrix product.
os.environ.setdefault("NPROC", "32")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The Python frames of each operation, which no test reads, make programs slower to lower.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")
# The tests' tensors are small. A second thread of PyTorch or OpenBLAS would spin until there is
# more to do: for a fourth of the CPU time of the comparisons with PyTorch.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# TensorFlow reads this at the first access to a bucket. Without the cache a test sees what it has
# changed itself.
os.environ.setdefault("GCS_STAT_CACHE_MAX_AGE", "0")
# The packages of Hugging Face read these when they are imported. Without them a question for a data
# set that is not there tries the network again and again, for 23 seconds.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# Readline, once it is imported, sets the width of the terminal for the processes that follow, and
# pytest's workers are such. Tables are as wide as in a file.
os.environ.pop("COLUMNS", None)

# A folder that tests share, for the stores and compiled programs of the runs that they start. The
# first process of a session makes and removes it; pytest's workers find it through the variable.
if "IFT_JAX_TESTS" not in os.environ:
    os.environ["IFT_JAX_TESTS"] = tempfile.mkdtemp(prefix="ift-jax-tests.")
    atexit.register(shutil.rmtree, os.environ["IFT_JAX_TESTS"], ignore_errors=True)

# Imports, tracing, and lowering make millions of objects that stay, and Python would look through
# them for cycles again and again: for a seventh of the imports' time, and a 25th of the tests'.
gc.disable()  # Until the tests are collected.
gc.set_threshold(100_000, 20, 10)

hypothesis.settings.register_profile("ift_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ift_jax")


def pytest_collection_modifyitems(items):
    """Run files with slow tests first, so that no process starts a long test at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish():
    """Take what the imports made, which stays, out of what is looked through for cycles."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter):
    """Show which files took longest: where the time of the whole suite can be cut."""
    seconds = collections.Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if hasattr(report, "duration"):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    if seconds.total() > 60:
        terminalreporter.section("seconds by file: setup, call and teardown of all tests")
        for name, total in seconds.most_common(40):
            terminalreporter.write_line(f"{total:7.1f}  {name}")


@contextlib.contextmanager
def _registries_as_they_were():
    """Restore SeqIO's global registries, because other tests have their data in other folders."""

    def registries():
        seqio = sys.modules.get("seqio")
        return [seqio.TaskRegistry, seqio.MixtureRegistry] if seqio else []

    kept = {
        registry: {name: registry.get(name) for name in registry.names()}
        for registry in registries()
    }
    yield
    for registry in registries():
        registry.reset()
        for name, provider in kept.get(registry, {}).items():
            registry.add_provider(name, provider)


@pytest.fixture(scope="module", autouse=True)
def what_a_file_registers_is_gone_after_it():
    with _registries_as_they_were():
        yield


@pytest.fixture(scope="module")
def one_device():
    """Let what a file's tests run have one of the eight devices.

    Programs for eight take longer to compile, and longer to run on two cores. For files that are
    not about meshes; tests/commands/test_finetuning_run.py runs whole commands on all eight.
    """
    import jax

    from ift_jax.checkpoint import export_adapter, load_model
    from ift_jax.sharding.mesh import make_mesh
    from ift_jax.training import train_program

    def mesh_of_one(sizes, devices=None):
        return make_mesh(sizes, jax.devices()[:1] if devices is None else devices)

    with pytest.MonkeyPatch.context() as patch:
        for module in (export_adapter, load_model, train_program):
            patch.setattr(module, "make_mesh", mesh_of_one)
        yield


@pytest.fixture
def own_registry():
    """Let a test register all its tasks anew, and remove them after it."""
    from ift_jax.preparation import seqio_registry

    seqio_registry._registered.clear()
    with _registries_as_they_were():
        yield
