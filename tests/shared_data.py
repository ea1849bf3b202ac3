"""Sample data of real systems, beside the checkout or where IFT_JAX_SHARED says.

The tests that read it skip where it is absent.
"""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared"
SHARED = Path(os.environ.get("IFT_JAX_SHARED", _BESIDE))

requires_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(),
    reason="the sample data is not here: IFT_JAX_SHARED names the folder that holds data/",
)
