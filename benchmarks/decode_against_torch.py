"""Greedy decoding against `transformers.generate`: SmolLM2-135M's shape, float32.

    python -m benchmarks.decode_against_torch --batch 1 [--rounds 3]

Prompts have 128 tokens and get 128 new ones; nothing stops early. Compilation and the first call of
each side are not counted. Needs the extra `reference`.

`share_of_bandwidth` is that of the tokens after the first: the bytes of the weights and of what the
cache then holds, once for each token, over the time without that of reading the prompt (an answer
of one token) and over the rate at which two threads read a large array (`benchmarks.machine`).
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.shapes import DECODERS, our_config, torch_model

PROMPT_LENGTH = 128
N_NEW = 128
SIDES = (OURS, "torch")


class Workload(NamedTuple):
    """What is decoded: prompts of PROMPT_LENGTH random tokens, by a model of random weights."""

    batch: int
    shape: str = "llama_135m"
    dtype: str = "float32"
    n_new: int = N_NEW


def prompts(workload: Workload) -> np.ndarray:
    """Draw random ids, int64[batch, PROMPT_LENGTH]."""
    rng = np.random.default_rng(0)
    vocab_size = DECODERS[workload.shape].vocab_size
    return rng.integers(3, vocab_size, (workload.batch, PROMPT_LENGTH))


def tokens_per_second(
    call: Callable[[int], int], workload: Workload, repeats: int, *, prompt_alone: bool = False
) -> dict[str, Any]:
    """Return the median rate of the calls after the first.

    Args:
        call: Makes so many new tokens of each prompt, and returns how many they are in all.
        workload: What is decoded.
        repeats: Calls that are timed.
        prompt_alone: Whether to measure the seconds of answers of a single token, too.
    """
    n_tokens = workload.batch * workload.n_new
    found = {"tokens_per_second": round(n_tokens / _seconds(call, workload, repeats), 2)}
    if prompt_alone:
        found["prompt_seconds"] = round(_seconds(call, workload._replace(n_new=1), repeats), 4)
    return found


def _seconds(call: Callable[[int], int], workload: Workload, repeats: int) -> float:
    seconds = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        n_tokens = call(workload.n_new)
        if i > 0:
            seconds.append(time.perf_counter() - start)
        assert n_tokens == workload.batch * workload.n_new
    return statistics.median(seconds)


def share_of_bandwidth(
    workload: Workload, found: dict[str, float], read_gb_per_second: float
) -> float:
    """Return the share of the memory's bandwidth that the tokens after the first took.

    Args:
        workload: What was decoded.
        found: What `tokens_per_second` returned.
        read_gb_per_second: The bandwidth.
    """
    from ift_jax.models.model import build_model

    shape = DECODERS[workload.shape]
    n_weights = build_model(our_config(workload.shape, tied_embedding=True)).n_params
    n_positions = workload.batch * (PROMPT_LENGTH + workload.n_new / 2)  # On average.
    n_cached = 2 * shape.n_layers * shape.n_kv_heads * shape.head_dim * n_positions
    gigabytes = (n_weights + n_cached) * np.dtype(workload.dtype).itemsize / 1e9
    seconds = workload.batch * workload.n_new / found["tokens_per_second"]
    per_token = (seconds - found["prompt_seconds"]) / (workload.n_new - 1)
    return round(gigabytes / per_token / read_gb_per_second, 3)


def our_side(workload: Workload, repeats: int, *, prompt_alone: bool = False) -> dict[str, Any]:
    """Time `Generator`, as `ift generate` uses it."""
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.decoding.generate import Generator, Options
    from ift_jax.decoding.stops import Stops
    from ift_jax.models.model import build_model
    from ift_jax.sharding.mesh import make_mesh

    model = build_model(our_config(workload.shape, tied_embedding=True, dtype=workload.dtype))
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        params = jax.jit(model.init)(jax.random.key(0))
        generator = Generator(model, params, stops=Stops((), (), None), pad_id=0)
        del params
        rows = prompts(workload).tolist()

        def call(n_new: int) -> int:
            options = Options(max_new_tokens=n_new)
            return sum(map(len, generator.generate(rows, options, batch_size=workload.batch)))

        return tokens_per_second(call, workload, repeats, prompt_alone=prompt_alone)


def torch_side(
    workload: Workload,
    repeats: int,
    device: str = "cpu",
    cache: str | None = None,
    *,
    prompt_alone: bool = False,
) -> dict[str, Any]:
    """Time `generate`, by default with its dynamic cache.

    Args:
        workload: What is decoded.
        repeats: Calls that are timed.
        device: Where, as torch names it.
        cache: The cache's implementation, as `transformers` names it.
        prompt_alone: See `tokens_per_second`.
    """
    import torch

    torch.manual_seed(0)
    dtype = getattr(torch, workload.dtype)
    model = torch_model(workload.shape).eval().to(device, dtype)
    ids = torch.from_numpy(prompts(workload)).to(device)

    def call(n_new: int) -> int:
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=n_new,
                max_new_tokens=n_new,
                eos_token_id=2,
                pad_token_id=0,
                cache_implementation=cache,
            )
        return int(out[:, PROMPT_LENGTH:].cpu().numel())

    return tokens_per_second(call, workload, repeats, prompt_alone=prompt_alone)


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--shape", choices=list(DECODERS), default="llama_135m")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    workload = Workload(args.batch, args.shape)
    if args.side:
        run_side = our_side if args.side == OURS else torch_side
        print(json.dumps(run_side(workload, args.repeats, prompt_alone=True)))
        return
    arguments = ["--batch", str(args.batch), "--shape", args.shape, "--repeats", str(args.repeats)]
    results = run_in_turn("benchmarks.decode_against_torch", SIDES, args.rounds, arguments)
    summary = summarize(results, "tokens_per_second", more_is_better=True)
    bandwidth = results.machine["read_gb_per_second"]
    for side, found in results.sides.items():
        shares = [share_of_bandwidth(workload, process, bandwidth) for process in found]
        summary["sides"][side]["share_of_bandwidth"] = statistics.median(shares)
    print(json.dumps({f"greedy_batch_{args.batch}": summary}, indent=1))


if __name__ == "__main__":
    main()
