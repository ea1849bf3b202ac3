"""The environment in which libtpu compiles for TPUs that this machine does not have."""

import os

# libtpu looks for a TPU when it is loaded, and prints many warnings if there is none.
_WITHOUT_A_TPU = {
    "JAX_PLATFORMS": "cpu",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def set_environment() -> None:
    """Set variables that libtpu and JAX read when they are loaded; call it before that."""
    for name, value in _WITHOUT_A_TPU.items():
        os.environ.setdefault(name, value)
