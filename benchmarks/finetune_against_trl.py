"""Finetuning on conversations, end to end, against TRL's `SFTTrainer`. Prints one JSON object.

    python -m benchmarks.finetune_against_trl [--shape small] [--lora 16] [--rounds 3] [--steps 24]

Conversations have log-normal lengths (mean about 350 tokens), and assistant turns are trained, with
AdamW in float32. The tokenizer and the shape of the model are the same on all sides. The figure is
trained tokens per second of whole steps, data included, after the first four (compilation,
warm-up). Ours packs whole examples into rows of 1,024. TRL is measured in three ways: as most use
it (padded, random order), with lengths grouped, and packed by `bfd`. Without flash attention the
packed examples see each other, so that is not the same training. With `--lora` adapters of that
rank on all seven projections are trained, TRL's by `peft`; all weights are float32.
Needs benchmarks/requirements.txt.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.alternate import OURS, run_in_turn, summarize
from benchmarks.made_data import CHATML, conversations, tokenizer_folder
from benchmarks.shapes import DECODERS, PROJECTIONS, our_config, torch_model

SIDES = (OURS, "trl_padded", "trl_grouped", "trl_packed")
MAX_LENGTH = 1024
BATCH_SIZE = 4
N_CONVERSATIONS = 2000
SKIPPED_STEPS = 4


def own_tokenizer(folder: Path, data: Path, shape: str) -> Path:
    """Return the folder of a tokenizer, none of whose ids is too large for the shape."""
    return tokenizer_folder(folder, data, "bpe", min(4096, DECODERS[shape].vocab_size))


def our_side(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run `ift train`; return figures from its own metrics."""
    from ift_jax.config.schema import (
        Config,
        DataConfig,
        FormatConfig,
        LoraConfig,
        TokenizerConfig,
        TrainConfig,
    )
    from ift_jax.training.console import Console
    from ift_jax.training.loop import train

    path = conversations(folder, N_CONVERSATIONS)
    config = Config(
        tokenizer=TokenizerConfig(str(own_tokenizer(folder, path, args.shape))),
        format=FormatConfig(template=CHATML),
        data=DataConfig(
            modules=("tasks.jsonl",),
            root=str(path),
            mixture="jsonl",
            max_length=MAX_LENGTH,
            store_dir=str(folder / "stores"),
        ),
        model=our_config(args.shape, tied_embedding=True),
        lora=LoraConfig(rank=args.lora),
        train=TrainConfig(
            batch_size=BATCH_SIZE,
            steps=args.steps,
            log_every=1,
            preview_prompts=0,
            eval_rows=BATCH_SIZE,
        ),
    )
    train(config, str(folder / "run"), Console(quiet=True))
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if "time" in record]
    records = [record for record in records if record["step"] > SKIPPED_STEPS]
    seconds = sum(record["time"]["seconds"] for record in records)
    trained = sum(record["trained_tokens"] for record in records)
    fill = statistics.mean(record["fill"] for record in records)
    return {"trained_tokens_per_second": round(trained / seconds, 1), "fill": round(fill, 3)}


class BatchCounts(NamedTuple):
    """The positions of one batch of TRL."""

    trained: int
    filled: int
    n_positions: int


def trl_side(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run `SFTTrainer` with the settings of a side."""
    import datasets
    import transformers
    from trl import SFTTrainer

    datasets.disable_progress_bars()
    path = conversations(folder, N_CONVERSATIONS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(own_tokenizer(folder, path, args.shape))
    rows = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
    )
    counts: list[BatchCounts] = []
    times: list[float] = []

    class Times(transformers.TrainerCallback):
        """Notes when each step has ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    trainer = SFTTrainer(
        torch_model(args.shape),
        trl_options(folder, args.steps, args.side),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Times()],
        peft_config=adapters(args.lora) if args.lora else None,
    )
    collate = trainer.data_collator

    def collate_and_count(examples: Any) -> Any:
        batch = collate(examples)
        labels = batch["labels"]
        n_positions = batch["input_ids"].numel()
        mask = batch.get("attention_mask")
        filled = n_positions if mask is None else int(mask.sum())
        counts.append(BatchCounts(int((labels != -100).sum()), filled, n_positions))
        return batch

    trainer.data_collator = collate_and_count
    trainer.train()
    measured = counts[SKIPPED_STEPS : len(times)]
    trained = sum(batch.trained for batch in measured)
    filled = sum(batch.filled for batch in measured)
    n_positions = sum(batch.n_positions for batch in measured)
    seconds = times[-1] - times[SKIPPED_STEPS - 1]
    return {
        "trained_tokens_per_second": round(trained / seconds, 1),
        "fill": round(filled / n_positions, 3),
    }


def adapters(rank: int) -> Any:
    """Return the adapters that our config of LoRA makes, for `peft`."""
    import peft

    return peft.LoraConfig(r=rank, lora_alpha=16, target_modules=PROJECTIONS, task_type="CAUSAL_LM")


def trl_options(folder: Path, steps: int, side: str) -> Any:
    """Return the settings of a side of TRL."""
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(folder / "out"),
        max_length=MAX_LENGTH,
        packing=side == "trl_packed",
        train_sampling_strategy="group_by_length" if side == "trl_grouped" else "random",
        assistant_only_loss=True,
        per_device_train_batch_size=BATCH_SIZE,
        max_steps=steps,
        use_cpu=True,
        bf16=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        learning_rate=1e-3,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )


def main() -> None:
    """Run the sides in turn and print one JSON object; with --side, run one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(DECODERS), default="small")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--lora", type=int, default=0, help="the rank of adapters; 0: none")
    parser.add_argument("--sides", choices=SIDES, nargs="+", default=SIDES, help="those to run")
    parser.add_argument("--side", choices=SIDES, help="run one process of it")
    args = parser.parse_args()
    if args.side:
        with tempfile.TemporaryDirectory() as folder:
            run_side = our_side if args.side == OURS else trl_side
            result = run_side(Path(folder), args)
        print(json.dumps(result))
        return
    arguments = [f"--shape={args.shape}", f"--steps={args.steps}", f"--lora={args.lora}"]
    results = run_in_turn("benchmarks.finetune_against_trl", args.sides, args.rounds, arguments)
    summary = summarize(results, "trained_tokens_per_second", more_is_better=True)
    summary["last"] = {side: found[-1] for side, found in results.sides.items()}
    print(json.dumps({f"finetune_{args.shape}_lora_{args.lora}": summary}, indent=1))


if __name__ == "__main__":
    main()
