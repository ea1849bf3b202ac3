"""Measures the way of the data: preparing, planning, packing, batches. Prints one JSON object.

    python -m benchmarks.data [--examples 20000] [--store-examples 4000]

It makes its own data with a fixed seed. Everything runs in one thread of one process, so the
figures are per core; on a busy machine only their proportions mean something.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ift_jax.config.schema import Config, DataConfig, FormatConfig, TokenizerConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.data.packing import pack, pack_2d
from ift_jax.data.store import TokenStore, part_path
from ift_jax.preparation.store_writer import PartBuilder, finish_store
from ift_jax.text.examples import Encoded

ROW = 2048
ENCODER, DECODER = 512, 128


def best_seconds(function: Any, repeats: int = 3) -> float:
    """The shortest of a few runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def log_normal(n: int, mean: float, most: int, seed: int) -> np.ndarray:
    """Lengths with a long tail, clipped to 1 .. `most`; int64[n]."""
    sigma = 0.8
    drawn = np.random.default_rng(seed).lognormal(np.log(mean) - sigma**2 / 2, sigma, n)
    return np.clip(drawn, 1, most).astype(np.int64)


def made_view(folder: Path, n: int) -> Mixture:
    """One store of n examples with log-normal lengths of mean 333 and random ids."""
    rng = np.random.default_rng(0)
    partial = folder / "made.partial"
    partial.mkdir()
    part = PartBuilder()
    for i, length in enumerate(log_normal(n, 333, ROW, 0)):
        tokens = rng.integers(1, 32_000, length).astype(np.int32)
        weights = (np.arange(length) >= length // 3).astype(np.float32)
        nothing = np.zeros(0, np.int32)
        part.add_record()
        part.add(Encoded(tokens, weights, nothing, length // 3, length // 3, ("",), 0, 0), i)
    part.write(part_path(partial, 0))
    finish_store(partial, folder / "made", {"shards": 1, "variants": 1, "split": "train"})
    store = TokenStore.open(folder / "made")
    return Mixture(["made"], np.ones(1), [store], [[]])


def batches(folder: Path, n: int) -> dict[str, Any]:
    """Planning the order and rows of a run, and assembling its batches."""
    view = made_view(folder, n)
    data = DataConfig(max_length=ROW, store_dir=str(folder))
    start = time.perf_counter()
    plan = BatchPlan(view, data, "decoder", 32, 0, epochs=3.0)
    planning = time.perf_counter() - start
    n_steps = plan.n_steps - 1
    for step in range(n_steps):  # Plans the windows again, and reads every page once.
        plan.batch(step)
    steps = [int(s) for s in np.linspace(0, n_steps - 1, min(n_steps, 20))]
    rows_alone = 0.0
    for step in steps:
        plan.examples(step)  # The window is at hand, as it nearly always is in a run.
        rows_alone += best_seconds(lambda step=step: plan.batch(step))
    start = time.perf_counter()
    for step in range(n_steps):
        plan.batch(step)
    whole_run = time.perf_counter() - start
    positions = 32 * ROW
    return {
        "planning_examples_per_second": round(plan.n_examples / planning),
        "planned_fill_of_the_run": round(plan.fill, 4),
        "assembly_tokens_per_second": round(positions * len(steps) / rows_alone),
        "assembly_with_window_planning_tokens_per_second": round(positions * n_steps / whole_run),
        "max_length": ROW,
    }


def packing(n: int) -> dict[str, Any]:
    """Speed and fill of one window of n examples."""
    lengths = log_normal(n, 333, ROW, 1)
    rows = pack(lengths, ROW).max() + 1
    result: dict[str, Any] = {
        "window": n,
        "mean_length": round(float(lengths.mean()), 1),
        "packing_examples_per_second": round(n / best_seconds(lambda: pack(lengths, ROW))),
        "fill": round(float(lengths.sum() / (rows * ROW)), 4),
    }
    for name, mean in (("short_targets", 12), ("long_targets", 40)):
        encoder, decoder = log_normal(n, 150, ENCODER, 2), log_normal(n, mean, DECODER, 3)
        rows = pack_2d(encoder, decoder, ENCODER, DECODER).max() + 1
        bound = max(np.ceil(encoder.sum() / ENCODER), np.ceil(decoder.sum() / DECODER))
        seconds = best_seconds(lambda e=encoder, d=decoder: pack_2d(e, d, ENCODER, DECODER))
        result[f"two_dimensions_{name}"] = {
            "capacities": [ENCODER, DECODER],
            "packing_examples_per_second": round(n / seconds),
            "encoder_fill": round(float(encoder.sum() / (rows * ENCODER)), 4),
            "decoder_fill": round(float(decoder.sum() / (rows * DECODER)), 4),
            "share_of_the_lower_bound": round(float(bound / rows), 4),
        }
    return result


def made_words(rng: np.random.Generator) -> list[str]:
    """3,000 words of two to eight letters."""
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(rng.choice(letters, k)) for k in rng.integers(2, 9, 3000)]


def preparing(folder: Path, n: int) -> dict[str, Any]:
    """Source, template, tokenizer and store of n conversations of about 350 tokens."""
    rng = np.random.default_rng(5)
    words = made_words(rng)
    path = folder / "made.jsonl"
    with open(path, "w") as file:
        for length in log_normal(n, 200, 1500, 4):
            text = rng.choice(words, length).tolist()
            third = len(text) // 3
            record = {"inputs": " ".join(text[:third]), "targets": " ".join(text[third:])}
            file.write(json.dumps(record) + "\n")
    from ift_jax.preparation.prepare import prepare
    from ift_jax.sources.register import register_jsonl_task

    register_jsonl_task("benchmark_made", {"train": str(path)})
    config = Config(
        tokenizer=TokenizerConfig(train_vocab_size=2048),
        format=FormatConfig(template="chatml"),
        data=DataConfig(
            mixture="benchmark_made",
            store_dir=str(folder / "stores"),
            max_length=ROW,
            max_dropped_fraction=1.0,
            processes=1,
        ),
    )
    path_of_tokenizer = prepare(config, log=lambda _: None).tokenizer_path
    again = dataclasses.replace(
        config,
        tokenizer=TokenizerConfig(path_of_tokenizer),
        data=dataclasses.replace(config.data, max_length=ROW - 1),
    )
    start = time.perf_counter()
    prepared = prepare(again, log=lambda _: None)
    seconds = time.perf_counter() - start
    manifest = prepared.mixture.stores[0].manifest
    return {
        "examples_per_second": round(manifest["examples"] / seconds),
        "tokens_per_second": round(manifest["tokens"] / seconds),
        "examples": manifest["examples"],
        "mean_tokens": round(manifest["tokens"] / manifest["examples"], 1),
        "characters_per_token": round(path.stat().st_size / manifest["tokens"], 2),
    }


def main() -> None:
    """Run all, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--store-examples", type=int, default=4_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = {
            "cores_of_the_machine": os.cpu_count(),
            "window": packing(8192),
            "batches": batches(Path(folder), arguments.examples),
            "preparing_one_core": preparing(Path(folder), arguments.store_examples),
        }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
