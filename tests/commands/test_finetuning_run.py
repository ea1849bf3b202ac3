"""`ift train --model MODEL --data ROWS`: a run without a config file, from start to resume."""

import dataclasses
import json
import re
import shutil

import pytest

from ift_jax.checkpoint.run_description import own_config
from ift_jax.commands.main import main
from ift_jax.config import files
from ift_jax.errors import UserError
from ift_jax.io import hub_datasets
from ift_jax.models import build_model
from tests import fake_hub
from tests.small_models import ARCHITECTURES, CONFIG, random_params, write_workdir

ROWS = 60
# The tests have 8 devices: 8 rows of one example each are a step.
FEW = [
    "--config.train.batch_size=8",
    "--config.data.max_length=32",
    "--config.train.preview_prompts=0",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuning")
    write_workdir(folder / "model")
    t5 = dataclasses.replace(ARCHITECTURES["encoder_decoder"], vocab_size=480)
    config = dataclasses.replace(CONFIG, model=t5)
    write_workdir(folder / "t5", config, random_params(build_model(t5)))
    lines = [
        {
            "messages": [
                {"role": "user", "content": f"Say {k}"},
                {"role": "assistant", "content": f"{k}!"},
            ]
        }
        for k in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(autouse=True)
def working_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def trained(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        argv = ["train", "--model", "model", "--data", "rows.jsonl", "--workdir", "W", *FEW]
        assert main([*argv, "--config.train.epochs=1"]) == 0
    return folder / "W"


def metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_run_evaluates_several_times_and_writes_a_config(trained, folder):
    config = files.load(str(trained / "config.yaml"))
    assert config.train.epochs == 1
    assert config.train.batch_size == 8
    assert config.model.init_from == str(folder / "model")
    assert config.data.root == str(folder / "rows.jsonl")
    assert config.format.template == "chatml"
    assert len([record for record in metrics(trained) if "eval_loss" in record]) >= 5
    text = (trained / "config.yaml").read_text()
    assert "# the model has no chat template\n  template: chatml" in text
    assert "d_model" not in text  # The model decides it.


def test_a_yaml_config_trains_the_same_run(trained, folder, capsys):
    argv = ["train", "--config", str(trained / "config.yaml"), "--workdir", "again"]
    assert main(argv) == 0
    losses = [record.get("loss") for record in metrics(trained)]
    assert [record.get("loss") for record in metrics(folder / "again")] == losses
    assert "chosen for this model" not in capsys.readouterr().out


def test_the_workdir_alone_knows_its_config(trained, capsys):
    assert main(["train", "--workdir", "W", "--config.train.epochs=1.5"]) == 0
    assert json.loads((trained / "config.json").read_text())["train"]["epochs"] == 1.5
    assert "resumed at step" in capsys.readouterr().out


def test_an_override_of_a_choice_takes_what_belonged_to_it(trained, tmp_path):
    assert own_config("W").optimizer.final_ratio == 0.1
    constant = own_config("W", ["--config.optimizer.schedule=constant"]).optimizer
    assert (constant.schedule, constant.final_ratio) == ("constant", 0.0)
    # A run of before may say what nothing reads; that of an override is refused.
    stored = json.loads((trained / "config.json").read_text())
    stored["optimizer"]["rsqrt_offset"] = 9
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert own_config(str(tmp_path), ["--config.seed=2"]).optimizer.rsqrt_offset == 9
    with pytest.raises(UserError, match="config.optimizer.rsqrt_offset: 8, but nothing reads it"):
        own_config(str(tmp_path), ["--config.optimizer.rsqrt_offset=8"])


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--workdir", "none"], "expected --config FILE, or --model DIR with --data FILES"),
        (["--workdir", "none", "--model", "model"], "--model: expected --data FILES beside it"),
        (["--workdir", "none", "--data", "rows.jsonl"], "--data: expected --model DIR beside it"),
        (
            ["--workdir", "none", "--model", "nowhere", "--data", "rows.jsonl"],
            "nowhere",
        ),
        (
            ["--workdir", "none", "--model", "model", "--data", "nothing.jsonl"],
            "--data: nothing.jsonl: no such file or folder",
        ),
        (
            ["--workdir", "none", "--config", "x.py", "--model", "model"],
            "--model: is for a run without --config",
        ),
        (
            ["--workdir", "W", "--model", "model", "--data", "rows.jsonl", "--lora"],
            "--lora 16: the run in",
        ),
        (["--workdir", "W", "--model", "elsewhere", "--data", "rows.jsonl"], "--model"),
        (
            "--workdir none --model model --data rows.jsonl --config.data.inputs_length=64".split(),
            "config.data.inputs_length: a decoder does not read it; expected data.max_length",
        ),
        (
            "--workdir none --model t5 --data rows.jsonl --config.data.max_length=64".split(),
            "config.data.max_length: an encoder-decoder does not read it; expected data.inputs_len",
        ),
        (
            "--workdir none --model model --data rows.jsonl --config.train.steps=2 "
            "--config.optimizer.schedule=constant --config.optimizer.final_ratio=0.2".split(),
            "config.optimizer.final_ratio: 0.2, but nothing reads it with optimizer.schedule 'cons",
        ),
    ],
)
def test_a_mistake_is_one_line(trained, folder, capsys, flags, expected):
    assert main(["train", *flags]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
    assert not (folder / "none").exists()


def test_lora_is_one_flag(folder, capsys):
    argv = ["train", "--model", "model", "--data", "rows.jsonl", "--workdir", "L", "--lora"]
    assert main([*argv, *FEW, "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert '"rank": 16' in output
    assert "for LoRA of a model of width 16" in output


def test_a_resumed_run_keeps_the_reasons_of_its_config(trained):
    before = (trained / "config.yaml").read_text()
    steps = json.loads((trained / "config.json").read_text())["train"]["epochs"]
    assert main(["train", "--workdir", "W", f"--config.train.epochs={steps}"]) == 0
    assert (trained / "config.yaml").read_text() == before


def test_the_same_flags_show_and_prepare_the_data(folder, capsys):
    argv = ["--model", "model", "--data", "rows.jsonl", *FEW]
    assert main(["prepare", *argv]) == 0
    assert "train: 1 task, 57 examples" in capsys.readouterr().out
    assert main(["inspect", *argv]) == 0
    output = capsys.readouterr().out
    assert "data_rows" in output
    assert "preparing" not in output  # The stores are those of before.
    assert main(["inspect", "mixture", *argv]) == 2
    assert main(["prepare"]) == 2
    assert "expected --config FILE, or --model DIR with --data FILES" in capsys.readouterr().err


def test_a_file_of_fewer_than_twenty_rows_is_trained_whole(folder, capsys):
    lines = (folder / "rows.jsonl").read_text().splitlines(keepends=True)
    (folder / "few.jsonl").write_text("".join(lines[:12]))
    assert main(["prepare", "--model", "model", "--data", "few.jsonl", *FEW]) == 0
    output = capsys.readouterr().out
    assert "data.eval_split = train: too few rows" in output
    assert output.count("1 task, 12 examples") == 2  # To train, and for the eval loss.


def test_eval_takes_the_config_of_the_run(trained, capsys):
    assert main(["eval", "--workdir", "W", "--config.evaluation.max_new_tokens=2"]) == 0
    output = capsys.readouterr().out
    assert "data_rows" in output
    assert re.search(r"data_rows +3 ", output)  # All 3 of the rows kept for validation.
    assert main(["eval", "--workdir", "W", "--config.evaluation.examples=0"]) == 2
    assert "config.evaluation.examples: expected at least 1" in capsys.readouterr().err


def test_eval_of_a_folder_without_a_run_asks_for_a_config(folder, capsys):
    (folder / "released").mkdir()
    (folder / "released" / "config.json").write_text('{"model_type": "llama"}')
    assert main(["eval", "--workdir", "released"]) == 2
    assert "is not the workdir of a run; expected --config FILE" in capsys.readouterr().err


def test_a_run_on_a_data_set_of_the_hub_keeps_the_rows_that_it_began_with(
    trained, folder, tmp_path, monkeypatch, capsys
):
    fake_hub.without_network(monkeypatch, tmp_path)
    first, later = "a" * 40, "d" * 40
    fake_hub.prepare(tmp_path, first, train=fake_hub.pairs(40))
    argv = ["train", "--model", "model", "--workdir", "H", *FEW, "--dry-run", "--data"]
    assert main([*argv, "hf://own/MySet=2,rows.jsonl=1"]) == 0
    output = capsys.readouterr().out
    pinned = f"hf://own/MySet:default@{first}"
    assert f"{pinned}: is in the cache" in output
    root = f"{pinned}=2,{folder / 'rows.jsonl'}=1"
    assert f'"root": "{root}"' in output

    # A run's config is what was printed; here, that of another run with the same data.
    shutil.copytree(trained / "tokenizer", folder / "H" / "tokenizer")
    config = json.loads((trained / "config.json").read_text())
    config["data"]["root"] = root
    (folder / "H" / "config.json").write_text(json.dumps(config))
    fake_hub.prepare(tmp_path, later, train=fake_hub.pairs(50))
    hub_datasets.load.cache_clear()
    assert main([*argv, "hf://own/MySet=2,rows.jsonl=1"]) == 0
    assert f'"root": "{root}"' in capsys.readouterr().out
    assert main([*argv, f"hf://own/MySet@{later}=2,rows.jsonl=1"]) == 2
    assert f"--data hf://own/MySet:default@{later}=2" in capsys.readouterr().err
    hub_datasets.load.cache_clear()
