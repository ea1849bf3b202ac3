"""Measure the data side: preparing, planning, packing, batches. Prints one JSON object.

    python -m benchmarks.data [--examples 20000] [--store-examples 4000]

The data are made with a fixed seed. Everything runs in one thread of one process, so the figures
are per core; on a busy machine only their ratios mean something.
"""

import argparse
import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_data import MAX_LENGTH, log_normal, made_words, token_mixture
from ift_jax.config.schema import Config, DataConfig, FormatConfig, TokenizerConfig
from ift_jax.data.batches import BatchPlan
from ift_jax.data.packing import pack, pack_2d

ENCODER_LENGTH = 512
DECODER_LENGTH = 128
BATCH_SIZE = 32


def best_seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Return the shortest time of a few calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def batches(folder: Path, n: int) -> dict[str, Any]:
    """Measure planning the order and rows of a run, and assembling its batches."""
    mixture = token_mixture(folder, n)
    data = DataConfig(max_length=MAX_LENGTH, store_dir=str(folder))
    start = time.perf_counter()
    plan = BatchPlan(mixture, data, "decoder", BATCH_SIZE, 0, epochs=3.0)
    planning = time.perf_counter() - start
    n_steps = plan.n_steps - 1
    for step in range(n_steps):  # Plans the windows again, and reads every page once.
        plan.batch(step)
    steps = [int(step) for step in np.linspace(0, n_steps - 1, min(n_steps, 20))]
    assembly = 0.0
    for step in steps:
        plan.examples(step)  # Plans the window, which in a run is nearly always planned already.
        assembly += best_seconds(lambda step=step: plan.batch(step))
    start = time.perf_counter()
    for step in range(n_steps):
        plan.batch(step)
    whole_run = time.perf_counter() - start
    n_positions = BATCH_SIZE * MAX_LENGTH
    return {
        "planning_examples_per_second": round(plan.n_examples / planning),
        "planned_fill_of_the_run": round(plan.fill, 4),
        "assembly_tokens_per_second": round(n_positions * len(steps) / assembly),
        "assembly_with_window_planning_tokens_per_second": round(n_positions * n_steps / whole_run),
        "max_length": MAX_LENGTH,
    }


def packing(n: int) -> dict[str, Any]:
    """Measure the speed and the fill of one window of n examples."""
    lengths = log_normal(n, 333, MAX_LENGTH, seed=1)
    n_rows = pack(lengths, MAX_LENGTH).max() + 1
    seconds = best_seconds(lambda: pack(lengths, MAX_LENGTH))
    return {
        "window": n,
        "mean_length": round(float(lengths.mean()), 1),
        "packing_examples_per_second": round(n / seconds),
        "fill": round(float(lengths.sum() / (n_rows * MAX_LENGTH)), 4),
        "two_dimensions_short_targets": packing_2d(n, mean_decoder_length=12),
        "two_dimensions_long_targets": packing_2d(n, mean_decoder_length=40),
    }


def packing_2d(n: int, mean_decoder_length: int) -> dict[str, Any]:
    """Measure packing the rows of an encoder-decoder."""
    encoder = log_normal(n, 150, ENCODER_LENGTH, seed=2)
    decoder = log_normal(n, mean_decoder_length, DECODER_LENGTH, seed=3)
    n_rows = pack_2d(encoder, decoder, ENCODER_LENGTH, DECODER_LENGTH).max() + 1
    seconds = best_seconds(lambda: pack_2d(encoder, decoder, ENCODER_LENGTH, DECODER_LENGTH))
    lower_bound = max(
        np.ceil(encoder.sum() / ENCODER_LENGTH), np.ceil(decoder.sum() / DECODER_LENGTH)
    )
    return {
        "capacities": [ENCODER_LENGTH, DECODER_LENGTH],
        "packing_examples_per_second": round(n / seconds),
        "encoder_fill": round(float(encoder.sum() / (n_rows * ENCODER_LENGTH)), 4),
        "decoder_fill": round(float(decoder.sum() / (n_rows * DECODER_LENGTH)), 4),
        "share_of_the_lower_bound": round(float(lower_bound / n_rows), 4),
    }


def write_text_records(path: Path, n: int) -> None:
    """Write JSON lines of n records of about 350 tokens, in 3,000 made words."""
    rng = np.random.default_rng(5)
    words = made_words(rng, 3000)
    with open(path, "w") as file:
        for length in log_normal(n, 200, 1500, seed=4):
            text = rng.choice(words, length).tolist()
            third = len(text) // 3
            record = {"inputs": " ".join(text[:third]), "targets": " ".join(text[third:])}
            file.write(json.dumps(record) + "\n")


def preparing(folder: Path, n: int) -> dict[str, Any]:
    """Measure source, template, tokenizer and store of n records."""
    # Imported here: both pull in TensorFlow.
    from ift_jax.preparation.prepare import prepare
    from ift_jax.sources.register import register_rows_task

    path = folder / "made.jsonl"
    write_text_records(path, n)
    register_rows_task("benchmark_made", {"train": str(path)})
    config = Config(
        tokenizer=TokenizerConfig(train_vocab_size=2048),
        format=FormatConfig(template="chatml"),
        data=DataConfig(
            mixture="benchmark_made",
            store_dir=str(folder / "stores"),
            max_length=MAX_LENGTH,
            max_dropped_fraction=1.0,
            processes=1,
        ),
    )
    # The first call trains the tokenizer; the second one, which is timed, makes another store.
    tokenizer_path = prepare(config, log=lambda _: None).tokenizer_path
    again = dataclasses.replace(
        config,
        tokenizer=TokenizerConfig(tokenizer_path),
        data=dataclasses.replace(config.data, max_length=MAX_LENGTH - 1),
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
    """Run all measurements and print one JSON object."""
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
