"""The input side against TRL and SeqIO, one core each. Prints one JSON object.

    python -m benchmarks.input_against_peers --what prepare [--tokenizer sentencepiece]
    python -m benchmarks.input_against_peers --what rows

`prepare`: JSON lines of conversations (about 350 tokens, ChatML) become what training reads. Here
that is the store of `ift prepare`; there, the data set that `SFTTrainer` makes, with assistant
masks and `bfd` packing. Both read the same `tokenizer.json`, or the same SentencePiece model, of
which the peer gets the conversion, since it takes fast tokenizers only.

Examples per second of CPU time (of the process and its children) are compared. With one core that
is the clock's time if nothing else runs and the disk is fast; the clock's rate is printed as well.

`rows`: tokenized examples become packed rows. Here that is a run's plan and all of its batches;
there, TRL's `pack_dataset` and SeqIO's packing feature converter. The time starts after imports.
Needs benchmarks/requirements.txt.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.made_data import (
    CHATML,
    MAX_LENGTH,
    conversations,
    token_mixture,
    tokenizer_folder,
)


class Stopwatch:
    """Measures the clock's time and the CPU time since it was made."""

    def __init__(self) -> None:
        self._clock = time.perf_counter()
        self._cpu = _cpu_seconds()

    def rate(self, n: int) -> dict[str, Any]:
        """Return the examples per second of the clock."""
        return {"examples_per_second": round(n / (time.perf_counter() - self._clock), 1)}

    def cpu_rate(self, n: int) -> dict[str, Any]:
        """Return the examples per second of CPU time, which is counted in hundredths."""
        return {"examples_per_cpu_second": round(n / (_cpu_seconds() - self._cpu), 1)}


def _cpu_seconds() -> float:
    """The CPU time that this process and its children have used."""
    return sum(os.times()[:4])


def prepare_ours(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """Run what `ift prepare` does in this process."""
    from ift_jax.config.schema import Config, DataConfig, FormatConfig, TokenizerConfig
    from ift_jax.preparation.prepare import prepare
    from ift_jax.sources.register import register_rows_task

    path = conversations(folder, n)
    # Without a validation split, 5% of the lines would become one.
    register_rows_task("benchmark_made", {"train": str(path), "validation": str(path)})
    tokenizer = tokenizer_folder(folder, path, kind)
    if kind == "sentencepiece":
        tokenizer /= "tokenizer.model"
    config = Config(
        tokenizer=TokenizerConfig(str(tokenizer)),
        format=FormatConfig(template=CHATML),
        data=DataConfig(
            mixture="benchmark_made",
            store_dir=str(folder / "stores"),
            max_length=MAX_LENGTH,
            processes=1,
        ),
    )
    stopwatch = Stopwatch()
    manifest = prepare(config, log=lambda _: None).mixture.stores[0].manifest
    n_examples = manifest["examples"]
    return {
        **stopwatch.cpu_rate(n_examples),
        **stopwatch.rate(n_examples),
        "tokens": manifest["tokens"],
        "trained": manifest["trained_tokens"],
    }


def prepare_trl(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """Run what `SFTTrainer` does to a data set before it trains."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    path = conversations(folder, n)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder(folder, path, kind))
    tiny = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(tiny)
    options = SFTConfig(
        output_dir=str(folder / "out"),
        max_length=MAX_LENGTH,
        packing=True,
        assistant_only_loss=True,
        use_cpu=True,
        report_to=[],
        bf16=False,
    )
    stopwatch = Stopwatch()
    rows = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
    )
    trainer = SFTTrainer(model, options, train_dataset=rows, processing_class=tokenizer)
    rates = stopwatch.cpu_rate(n) | stopwatch.rate(n)
    packed = trainer.train_dataset
    if "labels" in packed.column_names:
        trained = sum(int(np.sum(np.asarray(row) != -100)) for row in packed["labels"])
    else:
        trained = sum(int(np.sum(np.asarray(row) != 0)) for row in packed["assistant_masks"])
    return rates | {"tokens": sum(map(len, packed["input_ids"])), "trained": trained}


def rows_ours(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """Make a run's plan and every batch of an epoch."""
    from ift_jax.config.schema import DataConfig
    from ift_jax.data.batches import BatchPlan

    mixture = token_mixture(folder, n)
    stopwatch = Stopwatch()
    data = DataConfig(max_length=MAX_LENGTH, store_dir=str(folder))
    plan = BatchPlan(mixture, data, "decoder", 32, 0, epochs=1.0)
    filled = 0
    for step in range(plan.n_steps):
        filled += int((plan.batch(step)["segment_ids"] > 0).sum())
    return stopwatch.rate(n) | _fill(filled, plan.n_rows)


def rows_trl(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """Run `pack_dataset`, and read every row of the result."""
    import datasets
    from trl.data_utils import pack_dataset

    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokens, masks = _token_examples(folder, n)
    examples = datasets.Dataset.from_dict({"input_ids": tokens, "assistant_masks": masks})
    stopwatch = Stopwatch()
    packed = pack_dataset(examples, MAX_LENGTH, "bfd")
    filled = sum(len(row["input_ids"]) for row in packed.with_format("numpy"))
    return stopwatch.rate(n) | _fill(filled, len(packed))


def rows_seqio(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """Run the packing `LMFeatureConverter`, and read every row of the result."""
    import seqio
    import tensorflow as tf

    tokens, _ = _token_examples(folder, n)
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.stack(tokens))
    examples = ragged.map(lambda row: {"targets": row}).cache()
    for _ in examples:  # Fills the cache before the time starts.
        pass
    stopwatch = Stopwatch()
    converter = seqio.LMFeatureConverter(pack=True)
    packed = converter(examples, task_feature_lengths={"targets": MAX_LENGTH})
    rows = [int((row["decoder_segment_ids"] > 0).sum()) for row in packed.as_numpy_iterator()]
    return stopwatch.rate(n) | _fill(sum(rows), len(rows))


def _token_examples(folder: Path, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The ids and the masks of trained tokens of n made examples."""
    store = token_mixture(folder, n).stores[0]
    pairs = [store.tokens_and_weights(i) for i in range(len(store))]
    tokens = [ids for ids, _ in pairs]
    masks = [(weights > 0).astype(np.int32) for _, weights in pairs]
    return tokens, masks


def _fill(n_tokens: int, n_rows: int) -> dict[str, Any]:
    return {"fill": round(n_tokens / (n_rows * MAX_LENGTH), 4)}


MEASUREMENTS = {
    "prepare": {OURS: prepare_ours, "trl": prepare_trl},
    "rows": {OURS: rows_ours, "trl": rows_trl, "seqio": rows_seqio},
}


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=list(MEASUREMENTS), default="prepare")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--tokenizer", choices=["bpe", "sentencepiece"], default="bpe")
    parser.add_argument("--side", choices=[OURS, "trl", "seqio"])
    args = parser.parse_args()
    sides = MEASUREMENTS[args.what]
    if args.side:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        with tempfile.TemporaryDirectory() as folder:
            result = sides[args.side](Path(folder), args.examples, args.tokenizer)
        print(json.dumps(result))
        return
    arguments = ["--what", args.what, "--examples", str(args.examples)]
    arguments += ["--tokenizer", args.tokenizer]
    results = run_in_turn("benchmarks.input_against_peers", list(sides), args.rounds, arguments)
    figure = "examples_per_cpu_second" if args.what == "prepare" else "examples_per_second"
    summary = summarize(results, figure, more_is_better=True)
    summary["last"] = {side: found[-1] for side, found in results.sides.items()}
    print(json.dumps({args.what: summary}, indent=1))


if __name__ == "__main__":
    main()
