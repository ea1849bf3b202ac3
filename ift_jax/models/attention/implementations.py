"""The implementations of attention by name, and which one is used.

xla        `reference.dense_attention`: all scores of a row at once.
blockwise  `reference.blockwise_attention`: a block of queries at a time.
splash     `splash.splash_attention`: JAX's Pallas kernel for TPU.
triton     `triton.triton_attention`: our Pallas kernels for NVIDIA GPUs.

docs/attention.md compares them.
"""

import jax

from ift_jax.sharding import rules

# The kernels and their platforms. On any other platform they are interpreted, which is slow.
KERNEL_PLATFORMS = {"splash": "tpu", "triton": "gpu"}

MAX_DENSE_PAIRS = 2048 * 2048  # Pairs of a query and a key in a row; with more, blockwise.
# With a window, splash packs the first and the last key of a query into the halves of 32 bits.
MAX_SPLASH_WINDOWED_KEYS = 1 << 16


def choose_implementation(
    requested: str, n_queries: int, n_keys: int, *, windowed: bool, biased: bool
) -> str:
    """Return "xla", "blockwise", "splash" or "triton".

    A kernel is replaced by "xla" or "blockwise" (by the number of pairs) where it cannot be used:
    with a bias, and splash with a window over more than 65,536 keys.

    Args:
        requested: A value of the config's `model.attention` ("auto": by the platform), or "plain"
            for "xla" or "blockwise".
        n_queries: Query positions of a row.
        n_keys: Key positions of a row.
        windowed: Whether a sliding window limits what a query attends to.
        biased: Whether a bias is added to the scores.
    """
    if requested in ("xla", "blockwise"):
        return requested
    kernel = _platform_kernel() if requested == "auto" else requested
    if kernel == "splash" and windowed and n_keys > MAX_SPLASH_WINDOWED_KEYS:
        kernel = "plain"
    if kernel in KERNEL_PLATFORMS and not biased:
        return kernel
    return "xla" if n_queries * n_keys <= MAX_DENSE_PAIRS else "blockwise"


def _platform_kernel() -> str:
    """The kernel of the platform that programs are compiled for, or "plain"."""
    platform = rules.platform()
    if platform == "tpu":
        return "splash"
    if platform == "gpu" and gpus_are_supported():
        return "triton"
    return "plain"


def gpus_are_supported() -> bool:
    """Whether this machine's GPUs are NVIDIA's from Ampere (compute capability 8.0) on.

    Without a GPU here, the answer is yes: a program may be compiled for GPUs elsewhere.
    """
    capability = getattr(jax.local_devices()[0], "compute_capability", "8.0")
    major = capability.split(".")[0]
    return major.isdigit() and int(major) >= 8
