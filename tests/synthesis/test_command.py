"""`ift synthesize` as a user types it: over HTTP, with a model of our own, and mistakes."""

import json

import pytest

from ift_jax.commands import main
from ift_jax.synthesis.generator import TextRequest
from ift_jax.text.records import Message
from tests import small_models
from tests.synthesis.scripted import babble
from tests.synthesis.test_endpoint import serving

pytestmark = pytest.mark.usefixtures("one_device")
SEED = {"instruction": "Name it.", "instances": [{"input": "", "output": "x"}]}


@pytest.fixture
def seeds(tmp_path):
    path = tmp_path / "seeds.jsonl"
    rows = [
        SEED | {"instruction": f"verb{i} noun{i}", "is_classification": i > 5} for i in range(9)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def babbling(path, body, number):
    if path == "/v1/completions":
        prompt = body["prompt"]
    else:
        prompt = tuple(Message(**message) for message in body["messages"])
    answer = babble(TextRequest(prompt, 1, seed=body["seed"]))
    text = {"text": answer.text, "message": {"content": answer.text}}
    return 200, {}, {"choices": [text | {"finish_reason": answer.finish_reason}]}


@pytest.mark.parametrize("kind", ["self-instruct", "alpaca", "magpie"])
def test_a_data_set_is_made_over_http_and_made_again_the_same(kind, tmp_path, seeds, capsys):
    of_seeds = ["--seeds", seeds, "--variant", "alpaca" if kind == "alpaca" else "paper"]
    of_kind = ["--header", "<user>\\n", "--stop", "<end>"] if kind == "magpie" else of_seeds
    output = tmp_path / "made.jsonl"
    contents = []
    for concurrency in (1, 4):
        with serving(babbling) as (url, received):
            words = ["synthesize", "magpie" if kind == "magpie" else "self-instruct", *of_kind]
            words += ["--endpoint", url, "--endpoint-model", "m", "--concurrency", str(concurrency)]
            words += ["--target", "12", "--prompts-per-round", "4", "--output", str(output)]
            assert main.main(words) == 0
            n_asked = len(received)
            assert main.main(words) == 0 and len(received) == n_asked  # It is complete.
        contents.append(output.read_bytes())
        if kind == "magpie":
            assert any(body.get("prompt") == "<user>\n" for _, body, _ in received)
        output.rename(tmp_path / f"{concurrency}.jsonl")
        (tmp_path / "made.jsonl.synthesis").rename(tmp_path / f"{concurrency}.synthesis")
    assert contents[0] == contents[1] and contents[0].count(b"\n") >= 12
    printed = capsys.readouterr().out
    assert "written" in printed and "examples of" in printed


def test_a_model_of_our_own_continues_its_templates_header(tmp_path, monkeypatch, capsys):
    small_models.compile_one_program(monkeypatch)
    workdir = small_models.write_workdir(tmp_path / "run")
    output = tmp_path / "made.jsonl"
    words = ["synthesize", "magpie", "--model", workdir, "--target", "1", "--max-rounds", "1"]
    words += ["--prompts-per-round", "2", "--batch-size", "2", "--output", str(output)]
    status = main.main([*words, "--max-tokens", "8", "--max-answer-tokens", "8"])
    counts = json.loads((tmp_path / "made.jsonl.synthesis/counts.json").read_text())
    assert counts["stages"]["instructions"]["made"] == 2
    assert status == (0 if counts["examples"] else 2)
    settings = json.loads((tmp_path / "made.jsonl.synthesis/settings.json").read_text())
    assert settings["header"] and settings["weights"]


MODEL = ["--model", "none"]
ENDPOINT = ["--endpoint", "http://127.0.0.1:9/v1", "--endpoint-model", "m"]
MAGPIE = ["magpie", *ENDPOINT, "--header", "x"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["self-instruct", "--seeds", "none.jsonl", *ENDPOINT], "--seeds none.jsonl: cannot be"),
        (["magpie", *MODEL], "expected a run's workdir or a Hugging Face"),
        (["magpie", *ENDPOINT], "its chat template is not known; expected --header TEXT"),
        (
            ["magpie", "--header", "x", "--endpoint", "http://x/v1"],
            "expected --endpoint-model NAME",
        ),
        (["magpie", *MODEL, "--endpoint-model", "m"], "--endpoint-model: expected --endpoint URL"),
        ([*MAGPIE, "--step", "3"], "--step: belongs to --model"),
        ([*MAGPIE, "--stop", ""], "--header, --stop: expected a text that is not empty"),
        ([*MAGPIE, "--temperature", "-1"], "--temperature: expected 0 to 100; got -1"),
        ([*MAGPIE, "--answer-temperature", "101"], "--answer-temperature: expected 0 to 100"),
        (
            [*MAGPIE, "--top-p", "0.9", "--temperature", "0"],
            "--top-p: 0.9 needs a --temperature above 0; at 0 the most likely token is always tak",
        ),
        ([*MAGPIE, "--top-p", "0"], "--top-p: expected more than 0 and at most 1; got 0"),
        ([*MAGPIE, "--similarity", "1.5"], "--similarity: expected more than 0 and at most 1"),
        ([*MAGPIE, "--repetition-penalty", "0"], "--repetition-penalty: expected more than 0"),
        ([*MAGPIE, "--max-tokens", "0"], "--max-tokens: expected a whole number, 1 or more"),
        ([*MAGPIE, "--temprature", "1"], "--temprature: no such argument; did you mean '--temper"),
        (["magpy"], "invalid choice: 'magpy'"),
        (
            ["self-instruct", "--seeds", "x", *ENDPOINT, "--tasks-per-prompt", "9"],
            "--tasks-per-prompt: --variant paper has no use for it",
        ),
        (
            ["self-instruct", "--variant", "alpaca", "--seeds", "x", *ENDPOINT]
            + ["--max-instance-tokens", "9"],
            "--max-instance-tokens: --variant alpaca has no use for it",
        ),
    ],
)
def test_a_mistake_is_one_line_before_any_work(words, message, tmp_path, capsys):
    output = tmp_path / "made.jsonl"
    assert main.main(["synthesize", *words, "--target", "1", "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_model_is_named_once(tmp_path, capsys):
    words = ["synthesize", *MAGPIE, *MODEL, "--target", "1", "--output", str(tmp_path / "x")]
    assert main.main(words) == 2
    assert "not allowed with argument --endpoint" in capsys.readouterr().err
