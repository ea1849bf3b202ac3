"""The input side against TRL and SeqIO, one core each. Prints one JSON object.

    python -m benchmarks.input_against_peers --what prepare [--tokenizer sentencepiece]
    python -m benchmarks.input_against_peers --what rows

`prepare`: JSON lines of conversations (about 350 tokens, ChatML) become what training reads: here
`ift prepare`'s store; there the data set that `SFTTrainer` makes, with assistant masks and `bfd`
packing. Both read the same `tokenizer.json`, or the same SentencePiece model, of which the peer
gets the conversion (a fast tokenizer is all that it takes).

What is compared is examples a second of CPU time, the process's and its children's: with one core
that is the clock's, when nothing else runs and the disk is fast; the clock's is printed besides.

`rows`: tokenised examples become packed rows: here a run's plan and all of its batches; TRL's
`pack_dataset`; SeqIO's packing feature converter. What is timed starts after imports. Needs
benchmarks/requirements.txt.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.alternate import OURS, run_in_turn, summary
from benchmarks.data import ROW, log_normal, made_view

SIDES = {"prepare": (OURS, "trl"), "rows": (OURS, "trl", "seqio")}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}<|im_end|>"
    "{% endgeneration %}{% else %}{{ message['content'] }}<|im_end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def conversations(folder: Path, n: int) -> Path:
    """A file of n conversations of one or two turns in made words; the same for every side.

    Words come as often as in text, by Zipf's law with 50,000 kinds, and one of eight with a sign:
    what a tokenizer remembers of words must not look better than it is.
    """
    rng = np.random.default_rng(5)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = ["".join(rng.choice(letters, k)) for k in rng.integers(2, 9, 50_000)]
    below = np.cumsum(1 / (np.arange(len(words)) + 3))
    lengths = log_normal(n, 180, 800, 4) + 4
    drawn = np.searchsorted(below, rng.random(lengths.sum()) * below[-1])
    signs = np.array([",", ".", "?", ":"] + [""] * 28)[rng.integers(0, 32, len(drawn))]
    every = [words[i] + sign for i, sign in zip(drawn, signs.tolist(), strict=True)]
    path = folder / "made.jsonl"
    with open(path, "w") as file:
        for end, length in zip(np.cumsum(lengths), lengths, strict=True):
            text = every[end - length : end]
            cuts = np.array_split(np.arange(len(text)), 2 if length < 150 else 4)
            messages = [
                {"role": ("user", "assistant")[i % 2], "content": " ".join(text[j] for j in cut)}
                for i, cut in enumerate(cuts)
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path


def tokenizer_folder(folder: Path, data: Path, kind: str) -> Path:
    """A tokenizer of 4,096 pieces with the template, as a Hugging Face folder.

    "bpe" is byte-level; "sentencepiece" has `tokenizer.model` and the `tokenizer.json` of it.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from ift_jax.interop.sentencepiece_json import to_tokenizer_json
    from ift_jax.text.tokenizers.sentencepiece import SentencePieceTokenizer
    from ift_jax.text.tokenizers.train_sentencepiece import train_sentencepiece

    lines = data.read_text().splitlines()[:1000]
    texts = [m["content"] for line in lines for m in json.loads(line)["messages"]]
    target = folder / "tokenizer"
    target.mkdir()
    if kind == "sentencepiece":
        control = ("<|pad|>", "<|im_start|>", "<|im_end|>")
        model = train_sentencepiece(iter(texts), vocab_size=4096, control=control)
        (target / "tokenizer.model").write_bytes(model)
        ids = SentencePieceTokenizer(model)
        (target / "tokenizer.json").write_text(to_tokenizer_json(model, ids.special_tokens))
    else:
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=4096,
            special_tokens=["<|pad|>", "<|im_start|>", "<|im_end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.save(str(target / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|pad|>",
        "chat_template": CHATML,
    }
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    return target


def prepare_ours(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """`ift prepare` in this process."""
    from ift_jax.config.schema import Config, DataConfig, FormatConfig, TokenizerConfig
    from ift_jax.preparation.prepare import prepare
    from ift_jax.sources.register import register_jsonl_task

    path = conversations(folder, n)
    # With a validation split of its own, or 5% of the lines would become one.
    register_jsonl_task("benchmark_made", {"train": str(path), "validation": str(path)})
    tokenizer = tokenizer_folder(folder, path, kind)
    if kind == "sentencepiece":
        tokenizer /= "tokenizer.model"
    config = Config(
        tokenizer=TokenizerConfig(str(tokenizer)),
        format=FormatConfig(template=CHATML),
        data=DataConfig(
            mixture="benchmark_made", store_dir=str(folder / "stores"), max_length=ROW, processes=1
        ),
    )
    start, before = time.perf_counter(), _cpu()
    manifest = prepare(config, log=lambda _: None).mixture.stores[0].manifest
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    n = manifest["examples"]
    return _per_cpu(n, cpu) | _rate(
        n, seconds, tokens=manifest["tokens"], trained=manifest["trained_tokens"]
    )


def prepare_trl(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """What `SFTTrainer` does to a data set before it trains."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    datasets.disable_caching()
    datasets.disable_progress_bars()
    path = conversations(folder, n)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder(folder, path, kind))
    llama = transformers.LlamaConfig(
        vocab_size=4096,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
    )
    model = transformers.LlamaForCausalLM(llama)
    options = SFTConfig(
        output_dir=str(folder / "out"),
        max_length=ROW,
        packing=True,
        assistant_only_loss=True,
        use_cpu=True,
        report_to=[],
        bf16=False,
    )
    start, before = time.perf_counter(), _cpu()
    rows = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
    )
    trainer = SFTTrainer(model, options, train_dataset=rows, processing_class=tokenizer)
    seconds, cpu = time.perf_counter() - start, _cpu() - before
    packed = trainer.train_dataset
    column = "labels" if "labels" in packed.column_names else "assistant_masks"
    trained = sum(
        int(np.sum(np.asarray(row) != (-100 if column == "labels" else 0)))
        for row in packed[column]
    )
    tokens = sum(map(len, packed["input_ids"]))
    return _per_cpu(n, cpu) | _rate(n, seconds, tokens=tokens, trained=trained)


def rows_ours(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """A run's plan and every batch of an epoch."""
    from ift_jax.config.schema import DataConfig
    from ift_jax.data.batches import BatchPlan

    view = made_view(folder, n)
    start = time.perf_counter()
    data = DataConfig(max_length=ROW, store_dir=str(folder))
    plan = BatchPlan(view, data, "decoder", 32, 0, epochs=1.0)
    tokens = sum(int((plan.batch(s)["segment_ids"] > 0).sum()) for s in range(plan.n_steps))
    return _rate(n, time.perf_counter() - start, fill=tokens / (plan.n_rows * ROW))


def _made_examples(folder: Path, n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    store = made_view(folder, n).stores[0]
    pairs = [store.tokens_and_weights(i) for i in range(len(store))]
    return [ids for ids, _ in pairs], [(weights > 0).astype(np.int32) for _, weights in pairs]


def rows_trl(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """`pack_dataset`, and every row of it read."""
    import datasets
    from trl.data_utils import pack_dataset

    datasets.disable_caching()
    datasets.disable_progress_bars()
    tokens, masks = _made_examples(folder, n)
    made = datasets.Dataset.from_dict({"input_ids": tokens, "assistant_masks": masks})
    start = time.perf_counter()
    packed = pack_dataset(made, ROW, "bfd")
    filled = sum(len(row["input_ids"]) for row in packed.with_format("numpy"))
    return _rate(n, time.perf_counter() - start, fill=filled / (len(packed) * ROW))


def rows_seqio(folder: Path, n: int, kind: str) -> dict[str, Any]:
    """The packing `LMFeatureConverter`, and every row of it read."""
    import seqio
    import tensorflow as tf

    tokens, _ = _made_examples(folder, n)
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.stack(tokens))
    made = ragged.map(lambda row: {"targets": row}).cache()
    for _ in made:  # In memory before the clock starts.
        pass
    start = time.perf_counter()
    converter = seqio.LMFeatureConverter(pack=True)
    packed = converter(made, task_feature_lengths={"targets": ROW}).as_numpy_iterator()
    rows = [int((row["decoder_segment_ids"] > 0).sum()) for row in packed]
    return _rate(n, time.perf_counter() - start, fill=sum(rows) / (len(rows) * ROW))


def _cpu() -> float:
    """Seconds of CPU time that this process and its children have had."""
    return sum(os.times()[:4])


def _per_cpu(n: int, seconds: float) -> dict[str, Any]:
    return {"examples_per_cpu_second": round(n / seconds, 1)}


def _rate(n: int, seconds: float, **more: float) -> dict[str, Any]:
    return {"examples_per_second": round(n / seconds, 1)} | {
        k: round(v, 4) for k, v in more.items()
    }


def main() -> None:
    """Run the sides in turn and prints one JSON object; with --side, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=list(SIDES), default="prepare")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--examples", type=int, default=4000)
    parser.add_argument("--tokenizer", choices=["bpe", "sentencepiece"], default="bpe")
    parser.add_argument("--side")
    args = parser.parse_args()
    if args.side:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        function = globals()[f"{args.what}_{'ours' if args.side == OURS else args.side}"]
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(function(Path(folder), args.examples, args.tokenizer)))
        return
    arguments = ["--what", args.what, "--examples", str(args.examples)]
    arguments += ["--tokenizer", args.tokenizer]
    module = "benchmarks.input_against_peers"
    results = run_in_turn(module, SIDES[args.what], args.rounds, arguments)
    figure = "examples_per_cpu_second" if args.what == "prepare" else "examples_per_second"
    found = summary(results, figure, more_is_better=True)
    found["last"] = {side: of_side[-1] for side, of_side in results.items()}
    print(json.dumps({args.what: found}, indent=1))


if __name__ == "__main__":
    main()
