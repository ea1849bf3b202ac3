"""Measure the train step on packed rows, fed as a run feeds it. Prints one JSON object.

    python -m benchmarks.train_step [--steps 12] [--d-model 256] [--layers 4]

Two ways of feeding run in one process, in turn: `fed` takes new batches from the prefetcher, `held`
repeats one batch. Their ratio is the cost of feeding. `data_wait_share` is the share of the step
time in which the loop, and so the device, waited for a batch.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.made_data import token_mixture
from ift_jax.config.schema import Config, DataConfig, DecoderConfig, MeshConfig, TrainConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.models.model import build_model
from ift_jax.sharding.batch_placement import put_batch
from ift_jax.sharding.mesh import make_mesh
from ift_jax.training.optimizer import make_learning_rate, make_optimizer
from ift_jax.training.prefetch import Prefetcher
from ift_jax.training.state import init_state
from ift_jax.training.step import make_train_step
from ift_jax.training.throughput import measure_peak_flops

Batch = dict[str, jax.Array]


def make_config(folder: Path, args: argparse.Namespace) -> Config:
    """Return the config of the run that is measured."""
    n_heads = args.d_model // 64
    return Config(
        data=DataConfig(max_length=args.max_length, store_dir=str(folder)),
        model=DecoderConfig(
            vocab_size=args.vocab,
            d_model=args.d_model,
            n_layers=args.layers,
            n_heads=n_heads,
            n_kv_heads=max(1, n_heads // 2),
            head_dim=64,
            d_ff=args.d_model * 8 // 3,
        ),
        train=TrainConfig(batch_size=args.rows, steps=2 * args.steps + 2),
    )


class Steps:
    """The train step, its state, and the time that each call takes."""

    def __init__(self, config: Config, n_steps: int):
        """Makes the state; compiles nothing yet."""
        model = build_model(config.model)
        tx = make_optimizer(config.optimizer, model.logical_axes)
        schedule = make_learning_rate(config.optimizer, n_steps)
        self.model = model
        self._state = jax.jit(lambda: init_state(model, tx, 0, 1))()
        train_step = make_train_step(model, tx, schedule, config, 1)
        self._train_step = jax.jit(train_step, donate_argnums=0)

    def run(self, batch: Batch) -> None:
        """Run one step to its end."""
        self._state, metrics = self._train_step(self._state, batch)
        jax.block_until_ready(metrics)


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run the step over a made store with log-normal lengths of mean 333."""
    config = make_config(folder, args)
    mixture = token_mixture(folder, 4000)
    plan = BatchPlan.from_config(config, mixture)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    one_row = plan.batch(0, slice(0, 1))
    shapes = {name: (args.rows, *array.shape[1:]) for name, array in one_row.items()}

    def make_batch(step: int) -> Batch:
        return put_batch(mesh, shapes, lambda rows: plan.batch(step, rows))

    fed_seconds: list[float] = []
    held_seconds: list[float] = []
    n_tokens = 0
    n_trained = 0
    with jax.set_mesh(mesh):
        steps = Steps(config, plan.n_steps)
        held = make_batch(0)
        steps.run(held)  # Compiles.
        prefetcher = Prefetcher(make_batch, range(1, args.steps + 1))
        batches: Iterator[Batch] = iter(prefetcher)
        for _ in range(args.steps):
            start = time.perf_counter()
            batch = next(batches)
            steps.run(batch)
            fed_seconds.append(time.perf_counter() - start)
            n_tokens += int((batch["segment_ids"] > 0).sum())
            n_trained += int((batch["loss_weights"] > 0).sum())
            start = time.perf_counter()
            steps.run(held)
            held_seconds.append(time.perf_counter() - start)
        prefetcher.close()
    seconds = sum(fed_seconds)
    flops = steps.model.flops_per_token(mixture.lengths, mixture.trained_tokens) * n_tokens
    return {
        "parameters": steps.model.n_params,
        "tokens_per_second": n_tokens / seconds,
        "trained_tokens_per_second": n_trained / seconds,
        "median_step_seconds": statistics.median(fed_seconds),
        "fed_over_held": statistics.median(fed_seconds) / statistics.median(held_seconds),
        "data_wait_share": prefetcher.seconds_waited / seconds,
        "mfu_of_measured_peak": flops / seconds / measure_peak_flops("float32"),
        "fill": plan.fill,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--d-model", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--vocab", type=int, default=32_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"train_step": measure(Path(folder), args)}, indent=2))


if __name__ == "__main__":
    main()
