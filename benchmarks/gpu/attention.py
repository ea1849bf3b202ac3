"""Whether the attention kernel for GPUs computes attention: output and gradients.

    python -m benchmarks.gpu.attention [--tiny]

Outputs are compared with the formula in NumPy, gradients with dense attention in float32 at the
highest precision, both on the numbers that the kernel is given. Errors are relative to the largest
number of the array. A float32 product may be one of TF32 (10 bits) in a kernel, so the bound of
float32 is that of TF32; a wrong mask is an error of 0.1 and more.
"""

import argparse
import functools
from typing import Any, NamedTuple

import numpy as np

from benchmarks.gpu.records import Record, emit, emit_measured

BOUNDS = {"bfloat16": 0.02, "float32": 0.005}
KERNEL = "triton"
LONGEST_IN_NUMPY = 1100  # Tokens; the formula takes a second for them.


class Case(NamedTuple):
    """A shape and a mask; the rows are packed, and end in padding."""

    name: str
    length: int = 300
    kv_heads: int = 2
    head_dim: int = 64
    prefix: bool = False
    causal: bool = True
    window: int | None = None
    softcap: float = 0.0


CASES = (
    Case("packed"),
    Case("window", window=20),
    Case("soft cap, one key-value head", kv_heads=1, softcap=1.5),
    Case("prefix, window, soft cap", prefix=True, window=70, softcap=2.0),
    Case("both ways", kv_heads=4, causal=False),
    Case("odd length", length=1021),
    Case("head of 80", length=129, head_dim=80),
    Case("head of 128", length=511, head_dim=128),
    Case("head of 256", length=255, head_dim=256),
    Case("long", length=4096),
    Case("long, window, soft cap", length=4095, window=1024, softcap=30.0),
)
TINY_CASES = tuple(
    case._replace(length=75, head_dim=8) for case in CASES if case.name in ("packed", "window")
)


def check(case: Case, dtype: str) -> Record:
    """Compare one case; return the errors and whether they are within the bound."""
    import jax
    import jax.numpy as jnp

    from tests.models.attention import run_attention

    tokens = run_attention.packed_rows(1, with_prefix=case.prefix, length=case.length)
    inputs = [
        jnp.asarray(part, dtype)
        for part in run_attention.random_inputs(
            2, case.kv_heads, case.length, case.length, head_dim=case.head_dim
        )
    ]
    options: dict[str, Any] = {
        "causal": case.causal,
        "window": case.window,
        "softcap": case.softcap,
    }
    y, gradients = run_attention.output_and_gradients(KERNEL, inputs, tokens, tokens, **options)
    exact = [np.asarray(part, np.float32) for part in inputs]
    with jax.default_matmul_precision("highest"):
        dense_y, dense_gradients = run_attention.output_and_gradients(
            "xla", exact, tokens, tokens, **options
        )
    if case.length <= LONGEST_IN_NUMPY:
        dense_y = run_attention.numpy_output(exact, tokens, tokens, **options)
    names = ("output", "dq", "dk", "dv")
    errors = {
        name: relative_error(got, want)
        for name, got, want in zip(names, (y, *gradients), (dense_y, *dense_gradients), strict=True)
    }
    padding = tokens.segment_ids_BxL == 0
    zero = not y[padding].any() and not gradients[0][padding].any()
    ok = bool(zero and all(error <= BOUNDS[dtype] for error in errors.values()))
    return {"ok": ok, "bound": BOUNDS[dtype], "padding_is_zero": bool(zero), "errors": errors}


def relative_error(got: np.ndarray, want: np.ndarray) -> float:
    """Return the largest error over the largest number; infinite where `got` is not finite."""
    got = np.asarray(got, np.float64)
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    return float(np.abs(got - want).max() / np.abs(want).max())


def main(argv: list[str] | None = None) -> None:
    """Print a record for each case and dtype."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="two cases, to try it on a CPU")
    args = parser.parse_args(argv)
    import jax

    device = jax.devices()[0]
    emit({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__})
    for dtype in BOUNDS:
        for case in TINY_CASES if args.tiny else CASES:
            emit_measured(
                {"case": case.name, "dtype": dtype, "length": case.length},
                functools.partial(check, case, dtype),
            )


if __name__ == "__main__":
    main()
