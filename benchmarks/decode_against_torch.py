"""Greedy decoding against `transformers.generate`: SmolLM2-135M's shape, float32.

    python -m benchmarks.decode_against_torch --batch 1 [--rounds 3]

Prompts of 128 tokens, 128 new ones, nothing stops early; compiling and the first call of each
side are not counted. Needs the extra `reference`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summary
from benchmarks.step_against_torch import DECODERS, torch_model
from ift_jax.sharding.mesh import make_mesh

PROMPT, NEW = 128, 128
SIDES = (OURS, "torch")


def prompts(batch: int) -> np.ndarray:
    """int64[batch, PROMPT] random ids."""
    return np.random.default_rng(0).integers(3, DECODERS["llama_135m"]["vocab"], (batch, PROMPT))


def timed(call: Callable[[], int], batch: int, repeats: int) -> dict[str, Any]:
    """New tokens a second, the median of the calls after the first."""
    rates = []
    for i in range(repeats + 1):
        start = time.perf_counter()
        new = call()
        assert new == batch * NEW
        if i:
            rates.append(new / (time.perf_counter() - start))
    return {"tokens_per_second": round(statistics.median(rates), 2)}


def ours(batch: int, repeats: int) -> dict[str, Any]:
    """`Generator`, as `ift generate` uses it."""
    import jax

    from ift_jax.config.schema import DecoderConfig, MeshConfig
    from ift_jax.decoding.generate import Generator, Options
    from ift_jax.decoding.stops import Stops
    from ift_jax.models.model import build_model

    s = DECODERS["llama_135m"]
    model = build_model(
        DecoderConfig(
            vocab_size=s["vocab"],
            d_model=s["d"],
            n_layers=s["layers"],
            n_heads=s["heads"],
            n_kv_heads=s["kv"],
            head_dim=s["head"],
            d_ff=s["ff"],
            tied_embedding=True,
        )
    )
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        params = jax.jit(model.init)(jax.random.key(0))
        generator = Generator(model, params, stops=Stops((), (), None), pad_id=0)
        del params
        rows = prompts(batch).tolist()
        options = Options(max_new_tokens=NEW)

        def call() -> int:
            return sum(map(len, generator.generate(rows, options, batch_size=batch)))

        return timed(call, batch, repeats)


def torch_side(batch: int, repeats: int) -> dict[str, Any]:
    """`generate` with its default dynamic cache."""
    import torch

    torch.manual_seed(0)
    model = torch_model("llama_135m").eval()
    ids = torch.from_numpy(prompts(batch))

    def call() -> int:
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                min_new_tokens=NEW,
                max_new_tokens=NEW,
                eos_token_id=2,
                pad_token_id=0,
            )
        return int(out[:, PROMPT:].numel())

    return timed(call, batch, repeats)


def main() -> None:
    """Run the sides in turn and prints one JSON object; with --side, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        side = ours if args.side == OURS else torch_side
        print(json.dumps(side(args.batch, args.repeats)))
        return
    arguments = ["--batch", str(args.batch), "--repeats", str(args.repeats)]
    results = run_in_turn("benchmarks.decode_against_torch", SIDES, args.rounds, arguments)
    found = summary(results, "tokens_per_second", more_is_better=True)
    print(json.dumps({f"greedy_batch_{args.batch}": found}, indent=1))


if __name__ == "__main__":
    main()
