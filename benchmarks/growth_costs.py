"""What `benchmarks.growth` measures: one function for each cost, each of one point of a curve."""

import itertools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.made_data import CONTROL_TOKENS, MAX_LENGTH, log_normal, made_words
from benchmarks.planning import mixture_of_lengths
from benchmarks.step_against_torch import LEARNING_RATE, our_step, packed_rows
from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    FormatConfig,
    OptimizerConfig,
    TokenizerConfig,
)

Point = dict[str, float]
# A cost is measured again until it has taken so long, or so often.
ENOUGH_SECONDS = 4.0
MOST_REPEATS = 5
EPOCHS = 3.0
N_WORDS = 5000


def timed(calls: Iterator[Callable[[], Any]]) -> list[float]:
    """Return the seconds of each of several calls."""
    seconds: list[float] = []
    while sum(seconds) < ENOUGH_SECONDS and len(seconds) < MOST_REPEATS:
        call = next(calls)
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def least_seconds(calls: Iterator[Callable[[], Any]]) -> Point:
    """Return the shortest time of several calls, and how many they were."""
    seconds = timed(calls)
    return {"seconds": round(min(seconds), 5), "repeats": len(seconds)}


# --- The train step ---


def model_config(vocab_size: int) -> DecoderConfig:
    """Return a model whose layers cost little, so that what grows is seen."""
    return DecoderConfig(
        vocab_size=vocab_size,
        d_model=128,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        head_dim=64,
        d_ff=384,
        tied_embedding=True,
    )


def step(length: int, example_length: int, vocab_size: int, tokens: int) -> Point:
    """Time the train step on rows that are full of examples of one length.

    Args:
        length: The tokens of a row.
        example_length: Those of an example, of which 60% are trained; they divide the row.
        vocab_size: The size of the vocabulary.
        tokens: Those of a batch, whatever the length of its rows.
    """
    import jax

    from ift_jax.config.schema import MeshConfig
    from ift_jax.sharding.mesh import make_mesh

    batch = packed_rows(tokens // length, [example_length] * (length // example_length), vocab_size)
    config = Config(
        model=model_config(vocab_size),
        optimizer=OptimizerConfig(schedule="constant", learning_rate=LEARNING_RATE),
    )
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        run = our_step(config, batch).run
        run()
        seconds = timed(itertools.repeat(run))
    median = statistics.median(seconds)
    return {
        "seconds": round(median, 5),
        "tokens_per_second": round(tokens / median, 1),
        "repeats": len(seconds),
    }


# --- Planning ---


def planning(n_examples: int, n_tasks: int) -> Point:
    """Time the plan of a run of three epochs; it reads the examples' lengths alone."""
    from ift_jax.data.batches import BatchPlan

    with tempfile.TemporaryDirectory() as name:
        tasks = mixture_of_lengths(Path(name), n_examples, n_tasks)
        data = DataConfig(max_length=MAX_LENGTH, store_dir=name)

        def calls() -> Iterator[Callable[[], Any]]:
            while True:
                shutil.rmtree(Path(name, "plans"), ignore_errors=True)  # Each plans anew.
                yield lambda: BatchPlan(tasks, data, "decoder", 32, 0, epochs=EPOCHS)

        return least_seconds(calls())


# --- Preparing and opening ---


def write_tasks(folder: Path, n_records: int, n_tasks: int) -> str:
    """Write and register tasks of about 60 words a record; return the name of their mixture."""
    from ift_jax.sources.register import register_mixture, register_rows_task

    words = np.array(made_words(np.random.default_rng(6), N_WORDS))
    rng = np.random.default_rng(7)
    name = f"growth_{n_records}_{n_tasks}"
    tasks = []
    for i in range(n_tasks):
        lengths = log_normal(max(1, n_records // n_tasks), 60, 400, seed=i)
        path = folder / f"{name}_{i}.jsonl"
        with open(path, "w") as file:
            for length in lengths.tolist():
                text = rng.choice(words, length + 8).tolist()
                record = {"inputs": " ".join(text[:-8]), "targets": " ".join(text[-8:])}
                file.write(json.dumps(record) + "\n")
        tasks.append(f"{name}_{i}")
        # Each has both splits, as most have, so that no example is held out of the first.
        register_rows_task(tasks[-1], {"train": str(path), "validation": str(path)})
    register_mixture(name, tasks)
    return name


def tokenizer_file(folder: Path) -> Path:
    """Train a tokenizer, which is the same for all numbers of tasks."""
    from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece

    words = made_words(np.random.default_rng(6), N_WORDS)
    texts = (" ".join(words[i : i + 50]) for i in range(0, N_WORDS, 50))
    path = folder / "tokenizer.model"
    path.write_bytes(train_sentencepiece(texts, vocab_size=1024, control=CONTROL_TOKENS))
    return path


def preparing_and_opening(n_records: int, n_tasks: int) -> dict[str, Point]:
    """Time making the stores of so many records in all, and opening them, as a run does.

    Everything runs in this process.
    """
    from ift_jax.preparation.open_or_prepare import open_or_prepare

    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        stores = folder / "stores"
        config = Config(
            tokenizer=TokenizerConfig(str(tokenizer_file(folder))),
            format=FormatConfig(template="chatml"),
            data=DataConfig(
                mixture=write_tasks(folder, n_records, n_tasks),
                store_dir=str(stores),
                max_length=MAX_LENGTH,
                max_dropped_fraction=1.0,
                processes=1,
            ),
        )

        def preparing() -> Iterator[Callable[[], Any]]:
            while True:
                shutil.rmtree(stores, ignore_errors=True)
                yield lambda: open_or_prepare(config, log=_silent)

        def opening() -> Iterator[Callable[[], Any]]:
            while True:
                yield lambda: open_or_prepare(config, log=_silent)

        return {"preparing": least_seconds(preparing()), "opening": least_seconds(opening())}


def _silent(_: str) -> None:
    """Take a progress line."""
