"""`--best` takes the checkpoint that train.best_metric ranks first, in each command."""

import dataclasses
import json

import pytest

import ift_jax
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.retention import Ranking
from ift_jax.commands.main import main
from ift_jax.errors import UserError
from ift_jax.interop import verify_export
from tests.small_models import CONFIG, random_model, write_workdir

pytestmark = pytest.mark.usefixtures("one_device")
METRIC = "eval/overall/exact_match"


def write_run(folder, scores, **train):
    """Write a workdir whose checkpoints of steps 1, 2, ... have these scores; None: no score."""
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, **train))
    workdir = write_workdir(folder, config)
    ranking = Ranking.of(config.train)
    checkpoints = Checkpoints(workdir, keep=len(scores), ranking=ranking)
    for step, score in enumerate(scores, 1):
        checkpoints.save(step, {"params": random_model()[1]})
        if score is not None:
            checkpoints.rate(step, eval_loss=1.0 / step, value=score)
    checkpoints.close()
    return workdir


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "run"
    return write_run(folder, [0.25, 0.75, 0.5], best_metric=METRIC, keep_best=1)


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("best") / "unmeasured", [None])


def test_an_export_of_the_best_checkpoint_says_which_it_is(run, tmp_path, monkeypatch, capsys):
    # Importing transformers takes seconds, and other tests of exports do it.
    monkeypatch.setattr(verify_export, "check_in_transformers", lambda *_: None)
    output = str(tmp_path / "out")
    assert main(["export", "--workdir", run, "--output", output, "--best"]) == 0
    printed = capsys.readouterr()
    assert printed.err == f"step 2: the best of 3 checkpoints by {METRIC} (0.75)\n"
    assert f"step 2 of {run} is in {output}" in printed.out


def test_python_takes_it_too(run):
    assert ift_jax.load(run, step="best")._loaded.step == 2
    assert open_model_source(run).step == 3 and open_model_source(run).choice == ""


def test_a_better_checkpoint_that_is_gone_is_named(tmp_path):
    workdir = write_run(tmp_path / "run", [0.25, 0.5])
    chosen = "step 2: the best of 2 checkpoints by eval_loss (0.5)"
    assert open_model_source(workdir, "best").choice == chosen
    ratings = tmp_path / "run" / "checkpoints.json"
    gone = {**json.loads(ratings.read_text()), "0": {"eval_loss": 0.25}}
    ratings.write_text(json.dumps(gone))
    expected = f"{chosen}; step 0 was better and is not kept (train.keep_best=0)"
    assert open_model_source(workdir, "best").choice == expected


@pytest.mark.parametrize(
    "argv",
    [
        ["export", "--output", "out"],
        ["generate", "--prompt", "Hi"],
        ["chat"],
        ["serve", "--port", "0"],
        ["eval", "--config.evaluation.examples=1"],
        ["eval", "--benchmarks", "gsm8k", "--benchmark-data", "."],
    ],
)
def test_without_a_measured_metric_no_checkpoint_is_the_best(
    unmeasured, argv, tmp_path, monkeypatch, capsys
):
    if argv[0] == "serve":
        pytest.importorskip("uvicorn", reason="the extra serve is not installed")
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--workdir", unmeasured, "--best"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no checkpoint has a measured eval_loss (train.best_metric), so none is" in error
    assert "there: 1; name one with --step" in error
    assert main([*argv, "--workdir", unmeasured, "--best", "--step", "1"]) == 2
    assert "--step: not allowed with argument --best" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", [3, "best"])
def test_a_released_model_has_no_checkpoints(step, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for path in (str(tmp_path), str(tmp_path / "model.gguf")):
        with pytest.raises(UserError, match="is a released model, which has no checkpoints to"):
            open_model_source(path, step)
