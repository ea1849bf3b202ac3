"""Greedy decoding against `transformers.generate`: SmolLM2-135M's shape, float32.

    python -m benchmarks.decode_against_torch --batch 1 [--rounds 3]

Prompts have 128 tokens and get 128 new ones; nothing stops early. Compilation and the first call of
each side are not counted. Needs the extra `reference`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.shapes import DECODERS, our_config, torch_model

SHAPE = "llama_135m"
PROMPT_LENGTH = 128
N_NEW = 128
SIDES = (OURS, "torch")


def prompts(batch: int) -> np.ndarray:
    """Draw random ids, int64[batch, PROMPT_LENGTH]."""
    rng = np.random.default_rng(0)
    return rng.integers(3, DECODERS[SHAPE].vocab_size, (batch, PROMPT_LENGTH))


def tokens_per_second(call: Callable[[], int], batch: int, repeats: int) -> dict[str, Any]:
    """Return the median rate of the calls after the first; `call` returns the new tokens."""
    rates = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        n_tokens = call()
        seconds = time.perf_counter() - start
        assert n_tokens == batch * N_NEW
        if i > 0:
            rates.append(n_tokens / seconds)
    return {"tokens_per_second": round(statistics.median(rates), 2)}


def our_side(batch: int, repeats: int) -> dict[str, Any]:
    """Time `Generator`, as `ift generate` uses it."""
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.decoding.generate import Generator, Options
    from ift_jax.decoding.stops import Stops
    from ift_jax.models.model import build_model
    from ift_jax.sharding.mesh import make_mesh

    model = build_model(our_config(SHAPE, tied_embedding=True))
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        params = jax.jit(model.init)(jax.random.key(0))
        generator = Generator(model, params, stops=Stops((), (), None), pad_id=0)
        del params
        rows = prompts(batch).tolist()
        options = Options(max_new_tokens=N_NEW)

        def call() -> int:
            return sum(map(len, generator.generate(rows, options, batch_size=batch)))

        return tokens_per_second(call, batch, repeats)


def torch_side(batch: int, repeats: int) -> dict[str, Any]:
    """Time `generate` with its default dynamic cache."""
    import torch

    torch.manual_seed(0)
    model = torch_model(SHAPE).eval()
    ids = torch.from_numpy(prompts(batch))

    def call() -> int:
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=N_NEW,
                max_new_tokens=N_NEW,
                eos_token_id=2,
                pad_token_id=0,
            )
        return int(out[:, PROMPT_LENGTH:].numel())

    return tokens_per_second(call, batch, repeats)


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        side = our_side if args.side == OURS else torch_side
        print(json.dumps(side(args.batch, args.repeats)))
        return
    arguments = ["--batch", str(args.batch), "--repeats", str(args.repeats)]
    results = run_in_turn("benchmarks.decode_against_torch", SIDES, args.rounds, arguments)
    summary = summarize(results, "tokens_per_second", more_is_better=True)
    print(json.dumps({f"greedy_batch_{args.batch}": summary}, indent=1))


if __name__ == "__main__":
    main()
