"""The implementations of attention by name, and which one is used.

xla        `reference.dense_attention`: all scores of a row at once.
blockwise  `reference.blockwise_attention`: a block of queries at a time.
tiled      `tiled.tiled_attention`: blocks of queries and of keys; invisible ones are skipped.
splash     `splash.splash_attention`: JAX's Pallas kernel for TPU.
triton     `triton.triton_attention`: our Pallas kernels for NVIDIA GPUs.

docs/attention.md compares them.
"""

import jax

from ift_jax.sharding import rules

# The kernels and their platforms. On any other platform they are interpreted, which is slow.
KERNEL_PLATFORMS = {"splash": "tpu", "triton": "gpu"}

# Pairs of a query and a key in a row up to which all scores are computed at once. On a CPU a row of
# 512 tokens with packed examples takes 2.3 times as long that way as by tiles, one of 256 tokens
# 0.7 times.
MAX_DENSE_PAIRS = 2048 * 2048
MAX_DENSE_PAIRS_ON_CPU = 1 << 17
# With a window, splash packs the first and the last key of a query into the halves of 32 bits.
MAX_SPLASH_WINDOWED_KEYS = 1 << 16


MAX_TRITON_HEAD_DIM = 256  # A block of wider heads does not fit a GPU's shared memory.


def for_head_dim(requested: str, head_dim: int) -> str:
    """The `requested` of `choose_implementation`; "plain" if heads are too wide for its kernel."""
    kernel = _platform_kernel() if requested == "auto" else requested
    return "plain" if kernel == "triton" and head_dim > MAX_TRITON_HEAD_DIM else requested


def choose_implementation(
    requested: str, n_queries: int, n_keys: int, *, windowed: bool, biased: bool
) -> str:
    """Return "xla", "blockwise", "tiled", "splash" or "triton".

    A kernel is replaced where it cannot be used: with a bias or sinks, and splash with a window
    over more than 65,536 keys. Without one, the number of pairs decides: "xla" for few, and for
    more "tiled" on a CPU and "blockwise" elsewhere.

    Args:
        requested: A value of the config's `model.attention` ("auto": by the platform), or "plain"
            for what is not a kernel.
        n_queries: Query positions of a row.
        n_keys: Key positions of a row.
        windowed: Whether a sliding window limits what a query attends to.
        biased: Whether a bias is added to the scores, or each head has a sink.
    """
    if requested in ("xla", "blockwise", "tiled"):
        return requested
    kernel = _platform_kernel() if requested == "auto" else requested
    if kernel == "splash" and windowed and n_keys > MAX_SPLASH_WINDOWED_KEYS:
        kernel = "plain"
    if kernel in KERNEL_PLATFORMS and not biased:
        return kernel
    on_cpu = rules.platform() == "cpu"
    most_dense = MAX_DENSE_PAIRS_ON_CPU if on_cpu and requested == "auto" else MAX_DENSE_PAIRS
    if n_queries * n_keys <= most_dense:
        return "xla"
    return "tiled" if on_cpu else "blockwise"


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
