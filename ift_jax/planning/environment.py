"""What a run would be on a machine that is not here, by its compiler."""

import os

# libtpu looks for a TPU when it is loaded, and says at length that there is none.
_QUIET = {
    "JAX_PLATFORMS": "cpu", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}  # fmt: skip


def set_environment() -> None:
    """Sets what libtpu and JAX read as they are loaded; call it before anything imports JAX."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
