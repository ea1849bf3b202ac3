"""Sample data of real systems, beside the checkout or in the folder that IFT_JAX_SHARED names.

Tests that read it are skipped where it is absent.
"""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[2] / "shared"
SHARED = Path(os.environ.get("IFT_JAX_SHARED", _BESIDE))

requires_shared = pytest.mark.skipif(
    not (SHARED / "data").is_dir(),
    reason="the sample data is missing: IFT_JAX_SHARED names the folder that holds data/",
)
