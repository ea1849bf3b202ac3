"""`ift train --dry-run` of every recipe says its published numbers, without weights or data."""

import argparse
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ift_jax.commands import arguments
from ift_jax.inspection.dry_run import dry_run
from ift_jax.training.console import Console

_OLMO = "32 rows of 32,768 tokens, 1,048,576 tokens"
_OLMO_32B = "128 rows of 32,768 tokens, 4,194,304 tokens"
# As PUBLISHED below.
OPEN_SFT = {
    "open_sft:olmo3_instruct_7b": ("2 epochs", _OLMO, "adamw, linear 8e-05", "tokens", ""),
    "open_sft:olmo3_instruct_32b": ("2 epochs", _OLMO_32B, "adamw, linear 8e-05", "tokens", ""),
    "open_sft:olmo3_think_7b": ("2 epochs", _OLMO, "adamw, linear 5e-05", "tokens", ""),
    "open_sft:olmo3_think_32b_1e-4": ("2 epochs", _OLMO_32B, "adamw, linear 0.0001", "tokens", ""),
    "open_sft:olmo3_think_32b_5e-5": ("2 epochs", _OLMO_32B, "adamw, linear 5e-05", "tokens", ""),
    "open_sft:smol_smoltalk_135m": ("2 epochs", "128 rows of 8,192 tokens",
                                    "adamw, cosine 0.001", "tokens", ""),
    "open_sft:smol_smoltalk_360m": ("2 epochs", "128 rows of 8,192 tokens",
                                    "adamw, cosine 0.001", "tokens", ""),
    "open_sft:openr1_distill_7b": ("5 epochs", "128 rows of 32,768 tokens",
                                   "adamw, cosine 4e-05", "tokens", ""),
    "open_sft:magpie_8b": ("2 epochs", "32 rows of 8,192 tokens", "adamw, cosine 2e-05", "tokens",
                           ""),
    "open_sft:openthinker_7b": ("3 epochs", "96 rows of 16,384 tokens", "adamw, cosine 1e-05",
                                "tokens", ""),
    "open_sft:openthinker_32b": ("3 epochs", "96 rows of 16,384 tokens", "adamw, cosine 1e-05",
                                 "tokens", ""),
    "open_sft:openthinker3_7b": ("5 epochs", "512 rows of 16,384 tokens", "adamw, cosine 8e-05",
                                 "tokens", ""),
    "open_sft:nemotron_v1": ("1 epoch", "64 rows of 32,768 tokens", "adamw, cosine 5e-05",
                             "tokens", ""),
    "open_sft:nemotron_v2": ("1 epoch", "64 rows of 32,768 tokens", "adamw, cosine 5e-05",
                             "tokens", ""),
    "open_sft:hermes4_length_control": ("1 epoch", "64 rows of 40,960 tokens",
                                        "adamw, cosine 5e-06", "tokens", ""),
    "open_sft:nanochat": ("1 epoch", "256 rows of 2,048 tokens, 524,288 tokens",
                          "muon, wsd 0.0008", "tokens", ""),
}  # fmt: skip
# Length, batch, optimizer with its rate, loss, billions of parameters ("": not known yet).
PUBLISHED = {
    "alpaca:7b": ("3 epochs", "128 rows of 512 tokens", "adamw, cosine 2e-05", "tokens", "6.7"),
    "flan_137b_shape": ("30,000 steps", "4 rows of 2,048 tokens, 8,192 tokens",
                        "adafactor, constant 3e-05", "tokens", "137.7"),
    "flan_t5:base": ("84,000 steps", "64 rows of 2,048 + 512 tokens",
                     "adafactor, constant 0.0005", "sum", "0.2"),
    "flan_t5:large": ("64,000 steps", "64 rows of 2,048 + 512 tokens",
                      "adafactor, constant 0.0005", "sum", "0.8"),
    "flan_t5:small": ("98,000 steps", "64 rows of 2,048 + 512 tokens",
                      "adafactor, constant 0.0005", "sum", "0.1"),
    "flan_t5:xl": ("38,000 steps", "64 rows of 2,048 + 512 tokens",
                   "adafactor, constant 0.0005", "sum", "2.8"),
    "flan_t5:xxl": ("14,000 steps", "64 rows of 2,048 + 512 tokens",
                    "adafactor, constant 0.0005", "sum", "11.1"),
    "gemma4:e4b": ("2 epochs", "32 rows of 4,096 tokens", "adamw, cosine 1e-05", "tokens", "7.5"),
    "instructgpt:1b": ("16 epochs", "32 rows of 2,048 tokens", "adamw, cosine 9.65e-06", "tokens",
                       "1.3"),
    "instructgpt:6b": ("16 epochs", "32 rows of 2,048 tokens", "adamw, cosine 9.65e-06", "tokens",
                       "6.7"),
    "lima:65b": ("15 epochs", "32 rows of 2,048 tokens", "adamw, linear 1e-05", "tokens", "65.3"),
    "lima:7b": ("15 epochs", "64 rows of 2,048 tokens", "adamw, linear 1e-05", "tokens", "6.7"),
    "natural_instructions_small": ("1 epoch", "8 rows of 1,024 + 128 tokens",
                                   "adafactor, constant 0.01", "tokens", ""),
    **OPEN_SFT,
    "qlora": ("2 epochs", "16 rows of 2,048 tokens", "adamw, constant 0.0002", "tokens", "8.2"),
    "qwen3_30b_a3b": ("2 epochs", "64 rows of 4,096 tokens", "adamw, cosine 1e-05", "tokens",
                      "30.5"),
    "qwen3_5:4b": ("2 epochs", "32 rows of 4,096 tokens", "adamw, cosine 1e-05", "tokens", "4.2"),
    "smollm3:3b@mid": ("5 epochs", "128 rows of 32,768 tokens", "adamw, cosine 2e-05", "tokens",
                       ""),
    "smollm3:3b@sft": ("5 epochs", "128 rows of 65,536 tokens", "adamw, cosine 2e-05", "tokens",
                       ""),
    "smollm2_135m": ("100 steps", "2 rows of 1,024 tokens", "adamw, linear 0.0001", "tokens", ""),
    "t0:11b": ("12,200 steps", "1,024 rows of 1,024 + 256 tokens, 1,048,576 tokens",
               "adafactor, constant 0.001", "sum", "11.1"),
    "t0:3b": ("12,200 steps", "1,024 rows of 1,024 + 256 tokens, 1,048,576 tokens",
              "adafactor, constant 0.001", "sum", "2.8"),
    "t5_finetune": ("262,144 steps", "128 rows of 512 + 84 tokens", "adafactor, constant 0.001",
                    "sum", "0.2"),
    "tk_instruct:11b": ("1,000 steps", "1,024 rows of 1,024 + 128 tokens, 1,048,576 tokens",
                        "adafactor, constant 1e-05", "sum", "11.1"),
    "tk_instruct:3b": ("2 epochs", "16 rows of 1,024 + 128 tokens", "adamw, constant 5e-05",
                       "tokens", "2.8"),
    "tulu2:70b": ("2 epochs", "128 rows of 8,192 tokens", "adamw, linear 1e-05", "tokens", "69.0"),
    "tulu2:7b": ("2 epochs", "128 rows of 8,192 tokens", "adamw, linear 2e-05", "tokens", "6.7"),
    "tulu3:70b": ("2 epochs", "128 rows of 4,096 tokens", "adamw, linear 2e-06", "sum", "70.6"),
    "tulu3:8b": ("2 epochs", "128 rows of 4,096 tokens", "adamw, linear 5e-06", "sum", "8.0"),
    "tulu3_dpo:8b": ("1 epoch", "128 rows of 4,096 tokens", "adamw, linear 5e-07",
                     "sigmoid_norm of pairs, beta 5", "8.0"),
}  # fmt: skip
# Runs on data that is here, or that the user brings.
OTHERS = {"__init__", "jsonl", "quickstart"}


def test_every_recipe_is_in_the_table():
    recipes = {path.stem for path in Path("configs").glob("*.py")} - OTHERS
    assert recipes == {name.partition(":")[0] for name in PUBLISHED}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name, tmp_path, monkeypatch):
    # Whatever is on this machine, it is not looked for.
    for variable in ("HF_HOME", "TFDS_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path))
    recipe, colon, size = name.partition(":")
    size, _, stage = size.partition("@")
    args = argparse.Namespace(
        config=f"configs/{recipe}.py{colon}{size}",
        overrides=[f"--config.data.store_dir={tmp_path}"],
        stage=stage,
    )
    if name == "smollm2_135m":
        args.overrides.append(f"--config.model.init_from={tmp_path}/none")
    written = io.StringIO()
    dry_run(arguments.load_config(args, weights=False), "runs/none", Console(written))
    lines = [line for line in written.getvalue().splitlines() if line]
    length, batch, optimizer, loss, billions = PUBLISHED[name]
    at = lines.index(f"recipe: {length}")
    packed = "one example per row" if not _packs(name) else "packed"
    assert lines[at + 1] == f"  batch: {batch}; {packed}"
    assert lines[at + 2].startswith(f"  optimizer: {optimizer}, warm-up")
    assert lines[at + 3].startswith(f"  loss: {loss};")
    if billions:
        n_params = int(lines[at + 4].split()[0].replace(",", ""))
        assert f"{n_params / 1e9:.1f}" == billions
    missing = [line for line in lines if line.startswith("missing: ")]
    assert missing and lines[-1].startswith("dry run: nothing was trained")
    assert not os.path.exists(tmp_path / "tokenizers")  # Nothing was prepared.


def _packs(name):
    rows = (  # One conversation each.
        "alpaca", "instructgpt", "lima", "tulu", "tk_instruct:3b", "open_sft:smol",
        "open_sft:openr1", "open_sft:openthinker",
    )  # fmt: skip
    return not name.startswith(rows)


def test_the_state_is_counted():
    # AdamW: parameters and two moments of four bytes; gradients of four. Counters are nothing.
    args = argparse.Namespace(config="configs/tulu3.py:8b", overrides=[])
    written = io.StringIO()
    dry_run(arguments.load_config(args, weights=False), "runs/none", Console(written))
    n = 8_030_261_248
    want = f"{12 * n / 2**30:.1f} GiB over all devices, and {4 * n / 2**30:.1f} GiB of gradients"
    assert want in written.getvalue()


def test_the_command_ends_well_and_a_mistake_does_not(tmp_path):
    command = [sys.executable, "-m", "ift_jax.commands.main", "train", "--dry-run", "--workdir",
               str(tmp_path), "--config"]  # fmt: skip
    run = lambda *more: subprocess.run([*command, *more], capture_output=True, text=True)  # noqa: E731
    good = run("configs/tk_instruct.py:11b", f"--config.model.init_from={tmp_path}/none")
    assert good.returncode == 0, good.stderr
    assert f"missing: config.model.init_from {tmp_path}/none: no such" in good.stdout
    bad = run("configs/tk_instruct.py:11b", "--config.train.batch_tokens=1000")
    assert bad.returncode == 2 and "expected a multiple" in bad.stderr
