"""Greedy decoding in bfloat16 at batches of 1, 8 and 64: ours, or that of `transformers`.

    python -m benchmarks.gpu.decoding --side ift_jax|torch [--tiny]

SmolLM2-135M's shape; prompts of 128 tokens get 128 new ones. `generate` is measured with its
default dynamic cache, then with the static one, for which it compiles its step.
"""

import argparse
import functools
import itertools

from benchmarks.decode_against_torch import Workload, our_side, torch_side
from benchmarks.gpu.records import emit_measured

BATCHES = (1, 8, 64)
REPEATS = 3
CACHES = {"dynamic": None, "static": "static"}  # How `transformers` names them.


def workloads(tiny: bool) -> list[Workload]:
    """Return what is decoded, the smallest batch first."""
    if tiny:
        return [Workload(batch, "tiny", "bfloat16", n_new=4) for batch in (1, 2)]
    return [Workload(batch, "llama_135m", "bfloat16") for batch in BATCHES]


def main(argv: list[str] | None = None) -> None:
    """Print a record for each batch, and for `transformers` each cache."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", choices=("ift_jax", "torch"), required=True)
    parser.add_argument("--tiny", action="store_true", help="a tiny shape, to try it on a CPU")
    args = parser.parse_args(argv)
    repeats = 1 if args.tiny else REPEATS
    if args.side == "ift_jax":
        for workload in workloads(args.tiny):
            of = {"side": "ift_jax", "shape": workload.shape, "batch": workload.batch}
            emit_measured(of, functools.partial(our_side, workload, repeats))
        return
    device = "cpu" if args.tiny else "cuda"
    caches = ["dynamic"] if args.tiny else list(CACHES)
    for cache, workload in itertools.product(caches, workloads(args.tiny)):
        of = {"side": "torch", "shape": workload.shape, "batch": workload.batch, "cache": cache}
        emit_measured(of, functools.partial(torch_side, workload, repeats, device, CACHES[cache]))


if __name__ == "__main__":
    main()
