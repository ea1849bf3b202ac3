"""Measures the train step on packed rows, fed as a run feeds it. Prints one JSON object.

    python -m benchmarks.train_step [--steps 12] [--d-model 256] [--layers 4]

Both feeds run in one process, in turn: `fed` makes batches on the run's thread, `held` gives
the step one batch again and again. Their ratio is what feeding costs; `data_wait_share` is the
share of the step time in which the loop, and so the device, waited for a batch.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.data import made_view
from ift_jax.config.schema import Config, DataConfig, DecoderConfig, MeshConfig, TrainConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.models.model import build_model
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training import step as step_lib
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.state import init_state
from ift_jax.training.throughput import measure_peak_flops


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the step over a made store with log-normal lengths of mean 333."""
    heads = args.d_model // 64
    config = Config(
        data=DataConfig(max_length=args.max_length, store_dir=str(folder)),
        model=DecoderConfig(
            vocab_size=args.vocab,
            d_model=args.d_model,
            n_layers=args.layers,
            n_heads=heads,
            n_kv_heads=max(1, heads // 2),
            head_dim=64,
            d_ff=args.d_model * 8 // 3,
        ),
        train=TrainConfig(batch_size=args.rows, steps=2 * args.steps + 2),
    )
    view = made_view(folder, 4000)
    plan = BatchPlan.from_config(config, view)
    model = build_model(config.model)
    tx = make_optimizer(config.optimizer, model.logical_axes)
    schedule = make_learning_rate(config.optimizer, plan.n_steps)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    shapes = {name: (args.rows, *a.shape[1:]) for name, a in plan.batch(0, slice(0, 1)).items()}

    def batch_of(step: int) -> dict[str, jax.Array]:
        return put_batch(mesh, shapes, lambda rows: plan.batch(step, rows))

    with jax.set_mesh(mesh):
        state = jax.jit(lambda: init_state(model, tx, 0, 1))()
        train_step = jax.jit(
            step_lib.make_train_step(model, tx, schedule, config, 1), donate_argnums=0
        )
        held = batch_of(0)
        state, metrics = train_step(state, held)
        jax.block_until_ready(metrics)
        feed = Prefetcher(batch_of, range(1, args.steps + 1))
        fed_seconds, held_seconds, tokens, trained = [], [], 0, 0
        batches = iter(feed)
        for _ in range(args.steps):
            start = time.perf_counter()
            batch = next(batches)
            state, metrics = train_step(state, batch)
            jax.block_until_ready(metrics)
            fed_seconds.append(time.perf_counter() - start)
            tokens += int((batch["segment_ids"] > 0).sum())
            trained += int((batch["loss_weights"] > 0).sum())
            start = time.perf_counter()
            state, metrics = train_step(state, held)
            jax.block_until_ready(metrics)
            held_seconds.append(time.perf_counter() - start)
        feed.close()
    seconds = sum(fed_seconds)
    flops = model.flops_per_token(view.lengths, view.trained_tokens) * tokens
    return {
        "parameters": model.n_params,
        "tokens_a_second": tokens / seconds,
        "trained_tokens_a_second": trained / seconds,
        "median_step_seconds": statistics.median(fed_seconds),
        "fed_over_held": statistics.median(fed_seconds) / statistics.median(held_seconds),
        "data_wait_share": feed.waited / seconds,
        "mfu_of_measured_peak": flops / seconds / measure_peak_flops("float32"),
        "fill": plan.fill,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--row-length", type=int, default=2048)
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=32_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"train_step": measure(Path(folder), args)}, indent=2))


if __name__ == "__main__":
    main()
