"""The commands train and evaluate on sample data of real systems, read by the real loaders."""

import json
import math

import pytest

from ift_jax.commands import main
from ift_jax.preparation import seqio_registry
from tests.shared_data import SHARED, requires_shared

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("own_registry", "one_device"),
    requires_shared,
]
DATA = SHARED / "data"
ANY_MIXTURE = "ift_jax/inspection/default_config.py"  # The config of `ift inspect MIXTURE`.
SMALL = ("d_model=32", "n_heads=2", "head_dim=16", "d_ff=32")
DECODER = ("n_layers=1", "n_kv_heads=1", *SMALL)
ENCODER_DECODER = ("n_encoder_layers=1", "n_decoder_layers=1", *SMALL)
COMMON_SETTINGS = (
    "train.steps=3",
    "train.epochs=0.0",
    "train.batch_size=8",
    "train.log_every=1",
    "train.eval_rows=8",
    "train.peak_tflops=1.0",
    "train.preview_prompts=1",
    "train.report=False",
    "evaluation.examples=2",
    "evaluation.max_new_tokens=4",
)


def _some_tasks(folder):
    """Link four training tasks and two held-out ones, with the complete lists of the release."""
    release = DATA / "natural_instructions"
    (folder / "tasks").mkdir(parents=True)
    (folder / "splits").symlink_to(release / "splits")
    for name, count in (("train", 4), ("test", 2)):
        listed = (release / "splits" / "default" / f"{name}_tasks.txt").read_text().split()
        paths = [path for task in listed for path in release.glob(f"tasks*/{task}.json")]
        for path in paths[:count]:
            (folder / "tasks" / path.name).symlink_to(path)
    return folder


@pytest.mark.parametrize(
    ("config", "root", "settings", "model", "which", "metrics"),
    [
        (
            "configs/natural_instructions_small.py", "",
            ["optimizer.warmup_steps=1"],
            ENCODER_DECODER, "heldout", {"exact_match", "rouge_l"},
        ),
        (
            f"{ANY_MIXTURE}:self_instruct_seeds", "", ["format.template=plain"],
            DECODER, "eval", {"exact_match", "rouge_l"},
        ),
        (
            f"{ANY_MIXTURE}:gsm8k", "", ["data.eval_split=test", "format.template=plain"],
            DECODER, "eval", {"final_answer", "final_answer_flexible"},
        ),
        (
            f"{ANY_MIXTURE}:open_assistant", "chat", ["format.template=tulu"],
            DECODER, "eval", {"rouge_l"},
        ),
        (
            f"{ANY_MIXTURE}:sharegpt", "chat/vicuna_dummy_conversation.json",
            ["format.template=zephyr"], DECODER, "eval", {"rouge_l"},
        ),
    ],
    ids=["natural_instructions", "self_instruct", "gsm8k", "open_assistant", "sharegpt"],
)  # fmt: skip
def test_trains_and_is_evaluated(tmp_path, capsys, config, root, settings, model, which, metrics):
    seqio_registry._registered.clear()
    work = tmp_path / "run"
    scores = tmp_path / "scores.json"
    folder = DATA / root if which == "eval" else _some_tasks(tmp_path / "natural_instructions")
    settings = [
        f"data.root={folder}",
        f"data.store_dir={tmp_path / 'stores'}",
        *COMMON_SETTINGS,
        *settings,
        *(f"model.{field}" for field in model),
    ]
    if model is DECODER:
        settings += [
            "data.max_length=512",
            f"tokenizer.path={DATA / 'tokenizers/m.model'}",
        ]
    overrides = [f"--config.{setting}" for setting in settings]
    common = ["--config", config, "--workdir", str(work), *overrides]
    assert main.main(["train", *common]) == 0, capsys.readouterr().err
    assert main.main(["eval", *common, "--which", which, "--output", str(scores)]) == 0
    assert f"{which}, step 3" in capsys.readouterr().out

    lines = [json.loads(line) for line in (work / "metrics.jsonl").read_text().splitlines()]
    losses = [line["nll"] for line in lines if "grad_norm" in line]
    assert len(losses) == 3 and all(map(math.isfinite, losses))
    found = json.loads(scores.read_text())
    # Two examples of each task are scored by the task's own metrics.
    assert found["overall"]["examples"] == 2 * len(found["tasks"]) == len(found["answers"])
    assert len(found["tasks"]) == (2 if which == "heldout" else 1)
    for task in found["tasks"].values():
        assert metrics <= set(task) and all(0 <= task[name] <= 1 for name in metrics)
    assert all(answer["prompt"] and answer["references"] for answer in found["answers"])
