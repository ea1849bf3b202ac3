"""Finetuning on conversations, end to end, against TRL's `SFTTrainer`. Prints one JSON object.

    python -m benchmarks.finetune_against_trl [--shape small] [--rounds 3] [--steps 24]

Conversations of log-normal length (mean about 350 tokens), loss on assistant turns, AdamW,
float32, the same tokenizer and model shape. The figure is trained tokens a second of whole steps,
data included, after the first four (compilation, warm-up). Ours packs whole examples into rows of
1,024; TRL is measured as most use it (padded, random order), with lengths grouped, and packed by
`bfd`, which without flash attention lets examples see each other, so it is not the same training.
Needs benchmarks/requirements.txt.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.alternate import OURS, run_in_turn, summary
from benchmarks.input_against_peers import CHATML, conversations, tokenizer_folder
from benchmarks.step_against_torch import DECODERS

SIDES = (OURS, "trl_padded", "trl_grouped", "trl_packed")
LENGTH, ROWS, SKIPPED = 1024, 4, 4


def ours(folder: Path, shape: str, steps: int) -> dict[str, Any]:
    """`ift train`, from its own metrics."""
    from ift_jax.config.schema import (
        Config,
        DataConfig,
        DecoderConfig,
        FormatConfig,
        TokenizerConfig,
        TrainConfig,
    )
    from ift_jax.training.console import Console
    from ift_jax.training.loop import train

    path, s = conversations(folder, 2000), DECODERS[shape]
    config = Config(
        tokenizer=TokenizerConfig(str(tokenizer_folder(folder, path, "bpe"))),
        format=FormatConfig(template=CHATML),
        data=DataConfig(
            modules=("tasks.jsonl",),
            root=str(path),
            mixture="jsonl",
            max_length=LENGTH,
            store_dir=str(folder / "stores"),
        ),
        model=DecoderConfig(
            vocab_size=s["vocab"],
            d_model=s["d"],
            n_layers=s["layers"],
            n_heads=s["heads"],
            n_kv_heads=s["kv"],
            head_dim=s["head"],
            d_ff=s["ff"],
        ),
        train=TrainConfig(
            batch_size=ROWS, steps=steps, log_every=1, preview_prompts=0, eval_rows=ROWS
        ),
    )
    train(config, str(folder / "run"), Console(quiet=True))
    lines = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
    records = [r for r in lines if "time" in r and r["step"] > SKIPPED]
    seconds = sum(r["time"]["seconds"] for r in records)
    trained = sum(r["trained_tokens"] for r in records)
    fill = statistics.mean(r["fill"] for r in records)
    return {"trained_tokens_per_second": round(trained / seconds, 1), "fill": round(fill, 3)}


def trl(folder: Path, shape: str, steps: int, how: str) -> dict[str, Any]:
    """`SFTTrainer` with the settings that `how` names."""
    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer

    from benchmarks.step_against_torch import torch_model

    datasets.disable_progress_bars()
    path = conversations(folder, 2000)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_folder(folder, path, "bpe"))
    options = SFTConfig(
        output_dir=str(folder / "out"),
        max_length=LENGTH,
        packing=how == "trl_packed",
        train_sampling_strategy="group_by_length" if how == "trl_grouped" else "random",
        assistant_only_loss=True,
        per_device_train_batch_size=ROWS,
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
    rows = datasets.load_dataset(
        "json", data_files=str(path), split="train", cache_dir=str(folder / "cache")
    )
    counts: list[tuple[int, int, int]] = []
    times: list[float] = []

    class Times(transformers.TrainerCallback):
        """Note when each step has ended."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

    trainer = SFTTrainer(
        torch_model(shape),
        options,
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[Times()],
    )
    collate = trainer.data_collator

    def counted(examples: Any) -> Any:
        batch = collate(examples)
        labels, ids = batch["labels"], batch["input_ids"]
        mask = batch.get("attention_mask")
        filled = ids.numel() if mask is None else int(mask.sum())
        counts.append((int((labels != -100).sum()), filled, ids.numel()))
        return batch

    trainer.data_collator = counted
    trainer.train()
    measured = counts[SKIPPED : len(times)]
    trained, filled, places = map(sum, zip(*measured, strict=True))
    seconds = times[-1] - times[SKIPPED - 1]
    return {
        "trained_tokens_per_second": round(trained / seconds, 1),
        "fill": round(filled / places, 3),
    }


def main() -> None:
    """Run the sides in turn and prints one JSON object; with --side, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=list(DECODERS), default="small")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each side")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--side", choices=SIDES)
    args = parser.parse_args()
    if args.side:
        with tempfile.TemporaryDirectory() as folder:
            if args.side == OURS:
                result = ours(Path(folder), args.shape, args.steps)
            else:
                result = trl(Path(folder), args.shape, args.steps, args.side)
        print(json.dumps(result))
        return
    arguments = ["--shape", args.shape, "--steps", str(args.steps)]
    results = run_in_turn("benchmarks.finetune_against_trl", SIDES, args.rounds, arguments)
    found = summary(results, "trained_tokens_per_second", more_is_better=True)
    found["last"] = {side: of_side[-1] for side, of_side in results.items()}
    print(json.dumps({f"finetune_{args.shape}": found}, indent=1))


if __name__ == "__main__":
    main()
