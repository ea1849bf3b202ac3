"""Set-up of every test: eight CPU devices, quiet TensorFlow, the same random examples each time.

The variables must be set before JAX or TensorFlow is imported, so before any test module.
"""

import os

import hypothesis

_DEVICES = "--xla_force_host_platform_device_count"
if _DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

hypothesis.settings.register_profile("ift_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ift_jax")
