"""Answers to prompts of many lengths, as `ift eval` generates them, against `generate`.

    python -m benchmarks.decode_prompts_against_torch [--prompts 1000 --batch 64 --new 16]
    python -m benchmarks.decode_prompts_against_torch --prompts 32 --batch 32 --new 64 --longest 256

SmolLM2-135M's shape, float32, greedy; prompts have 8 to 64 tokens, unless the flags say otherwise,
and nothing stops early. Both sides decode the same batches, of prompts of similar lengths: we pad
on the right to few lengths, `generate` on the left. The time is that of all prompts, compilation
included; the second figure is that of the prompts again, without it. Needs the extra `reference`.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.shapes import DECODERS, our_config, torch_model

SIDES = (OURS, "torch")


def prompts(args: argparse.Namespace) -> list[list[int]]:
    """Draw prompts of random ids and random lengths."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(args.shortest, args.longest + 1, args.prompts)
    vocab_size = DECODERS[args.shape].vocab_size
    return [rng.integers(3, vocab_size, length).tolist() for length in lengths]


def seconds_of(call: Callable[[], int], expected: int) -> float:
    """Time a call, which returns how many new tokens it has made."""
    start = time.perf_counter()
    n_tokens = call()
    assert n_tokens == expected
    return time.perf_counter() - start


def our_side(args: argparse.Namespace) -> Callable[[], int]:
    """Return a call of what an evaluation calls, its look for a signal included."""
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.decoding import Generator, Options, Request, Stops
    from ift_jax.models.model import build_model
    from ift_jax.sharding.mesh import make_mesh

    model = build_model(our_config(args.shape, tied_embedding=True))
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        params = jax.jit(model.init)(jax.random.key(0))
    generator = Generator(model, params, stops=Stops(), pad_id=0)
    requests = [Request(prompt, Options(args.new)) for prompt in prompts(args)]

    def call() -> int:
        batches = generator.complete_batches(requests, batch_size=args.batch, stopped=lambda: False)
        outputs = [output for outputs in batches for output in outputs.values()]
        return sum(len(output.completions[0].ids) for output in outputs)

    return call


def torch_side(args: argparse.Namespace) -> Callable[[], int]:
    """Return a call of `generate` on batches of prompts of similar lengths."""
    import torch

    torch.manual_seed(0)
    model = torch_model(args.shape).eval()
    by_length = sorted(prompts(args), key=len)

    def call() -> int:
        n_tokens = 0
        for start in range(0, args.prompts, args.batch):
            rows = by_length[start : start + args.batch]
            longest = max(map(len, rows))
            ids = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, prompt in enumerate(rows):
                ids[row, longest - len(prompt) :] = torch.tensor(prompt)
                mask[row, longest - len(prompt) :] = 1
            with torch.inference_mode():
                out = model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=False,
                    min_new_tokens=args.new,
                    max_new_tokens=args.new,
                    eos_token_id=2,
                    pad_token_id=0,
                )
            n_tokens += int(out[:, longest:].numel())
        return n_tokens

    return call


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new", type=int, default=16, help="new tokens of each prompt")
    parser.add_argument("--shortest", type=int, default=8, help="tokens of the shortest prompt")
    parser.add_argument("--longest", type=int, default=64, help="tokens of the longest prompt")
    parser.add_argument("--shape", choices=list(DECODERS), default="llama_135m")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side")
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        side = our_side if args.side == OURS else torch_side
        call = side(args)
        first, again = (seconds_of(call, args.prompts * args.new) for _ in range(2))
        print(json.dumps({"seconds": round(first, 1), "seconds_again": round(again, 1)}))
        return
    names = ("prompts", "batch", "new", "shortest", "longest", "shape")
    arguments = [f"--{name}={getattr(args, name)}" for name in names]
    module = "benchmarks.decode_prompts_against_torch"
    results = run_in_turn(module, SIDES, args.rounds, arguments)
    found: dict[str, Any] = {
        figure: summarize(results, figure, more_is_better=False)
        for figure in ("seconds", "seconds_again")
    }
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
