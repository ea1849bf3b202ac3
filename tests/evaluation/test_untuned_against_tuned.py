"""`ift eval --untuned`: choices are prepared, then ranked zero-shot and after solved examples."""

import json
import sys

import jax
import numpy as np
import pytest

from ift_jax.commands.main import main
from ift_jax.config.files import to_json
from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EvaluationConfig,
    FormatConfig,
    TokenizerConfig,
    TrainConfig,
)
from ift_jax.errors import UserError
from ift_jax.evaluation.in_context import Way, compared
from ift_jax.evaluation.intervals import interval_of_scores
from ift_jax.models import build_model
from ift_jax.preparation.open_or_prepare import open_or_prepare
from tests.small_models import write_workdir

MODULE = '''
import json
from ift_jax.metrics import exact_match
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.register import register_task

COLORS = ["red", "green", "blue"]


class Colors(PythonDataSource):
    """Ragged choices: two or three, the answer among them."""

    fields = ("inputs", "targets", "choices")
    group = "colors"

    def files(self, split):
        return []

    def items(self, split):
        return range(12) if split == "train" else range(20, 27)

    def render(self, item, split, index, seed):
        choices = COLORS[: 2 + item % 2]
        answer = choices[item % len(choices)]
        return {"inputs": f"{item}?", "targets": answer, "choices": json.dumps(choices)}


def register(root):
    register_task("colors", Colors(["train", "validation"]), metric_fns=[exact_match])
'''
CONFIG = """
import json
from ift_jax.config.files import default_config


def get_config(path):
    config = default_config("decoder")
    config.update(json.load(open(path)))
    return config
"""


def test_one_command(tmp_path, monkeypatch, capsys, one_device, own_registry):
    (tmp_path / "made_colors.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "made_colors", raising=False)
    config = Config(
        model=DecoderConfig(
            vocab_size=512,
            max_length=256,
            d_model=16,
            n_layers=1,
            n_heads=2,
            n_kv_heads=1,
            head_dim=8,
            d_ff=24,
        ),
        format=FormatConfig("alpaca"),
        data=DataConfig(
            modules=("made_colors",),
            mixture="colors",
            store_dir=str(tmp_path / "stores"),
            max_length=256,
        ),
        tokenizer=TokenizerConfig(path=str(tmp_path / "tuned" / "tokenizer")),
        train=TrainConfig(steps=1),
        evaluation=EvaluationConfig(examples=5),
    )
    init = jax.jit(build_model(config.model).init)
    tuned = write_workdir(tmp_path / "tuned", config, init(jax.random.key(0)))
    base = write_workdir(tmp_path / "base", config, init(jax.random.key(1)))
    (tmp_path / "config.py").write_text(CONFIG)
    (tmp_path / "fields.json").write_text(to_json(config))

    _, mixture = open_or_prepare(config, "eval")
    store = mixture.stores[0]
    assert [[text for text, _ in store.choices(i)] for i in range(7)] == [
        ["red", "green", "blue"][: 2 + i % 2] for i in range(20, 27)
    ]
    answers = [store.tokens(i)[store.weights(i) > 0].tolist() for i in range(7)]
    for i, ids in enumerate(answers):  # The right choice has the ids that would be trained.
        assert ids == dict(store.choices(i))[store.references(i)[0]]

    output = tmp_path / "scores.json"
    arguments = ["eval", "--config", f"{tmp_path}/config.py:{tmp_path}/fields.json"]
    arguments += ["--workdir", tuned, "--untuned", base, "--shots", "5", "--output", str(output)]
    assert main(arguments) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "eval, step 0" in printed and f"untuned, 5-shot: {base}" in printed
    assert "accuracy of choice" in printed and "colors_5_shot" in printed
    result = json.loads(output.read_text())
    for scored, name, blocks in ((result, "colors", 0), (result["untuned"], "colors_5_shot", 5)):
        task = scored["tasks"][name]
        assert task["examples"] == 5 and 0 <= task["accuracy"] <= 1
        assert len(scored["answers"]) == 5
        for i, answer in enumerate(scored["answers"]):
            assert f"{20 + i}?" in answer["prompt"]
            assert answer["prompt"].count("?\n") - 1 >= blocks - 1
            assert len(answer["scores"]) == len(answer["choices"]) == 2 + i % 2
            assert answer["answer"] == answer["choices"][int(np.argmax(answer["scores"]))]
        right = [answer["answer"] in answer["references"] for answer in scored["answers"]]
        assert task["accuracy"] == np.mean(right)

    # The figure of both without examples, and after examples: the same answers as above.
    figure, plot = tmp_path / "figure.json", tmp_path / "figure.svg"
    arguments = ["compare", "--few-shot", "5", tuned, "--untuned", base, "--which", "eval"]
    arguments += ["--config", f"{tmp_path}/config.py:{tmp_path}/fields.json"]
    assert main([*arguments, "--metric", "acuracy"]) == 2
    assert "--metric acuracy: no task of 'eval' has it; did you mean" in capsys.readouterr().err
    assert main([*arguments, "--output", str(figure), "--plot", str(plot)]) == 0
    assert "mean over tasks" in capsys.readouterr().out
    content = json.loads(figure.read_text())
    ways = content["ways"]
    assert ways == ["untuned, 0-shot", "untuned, 5-shot", "tuned, 0-shot"]
    [line] = [each for each in content["scores"] if each["name"] == "colors"]
    for k, scored in ((1, result["untuned"]["tasks"]["colors_5_shot"]), (2, result["tasks"])):
        assert line["means"][k] == (scored if k == 1 else scored["colors"])["accuracy"]
        low, high = line["intervals"][k]["low"], line["intervals"][k]["high"]
        assert 0 <= low <= line["means"][k] <= high <= 1
    for k in (0, 1):
        assert line["gains"][k][0] == pytest.approx(line["means"][2] - line["means"][k])
    zero_shot = content["results"][ways[0]]["answers"]
    assert [answer["task"] for answer in zero_shot] == ["colors"] * 5
    assert all(answer["prompt"].count("?") == 1 for answer in zero_shot)
    assert all(way in plot.read_text() for way in ways)
    assert main(["compare", "--few-shot", "5", tuned]) == 2
    assert "began from no model; expected --untuned DIR" in capsys.readouterr().err
    assert main(["compare", tuned, base, "--plot", "x.svg"]) == 2
    assert "expected --few-shot K beside it" in capsys.readouterr().err


def test_clusters_and_the_mean_are_means_over_tasks_of_the_same_examples():
    def way(name, scores):
        answers = [
            {"task": task, "index": i, "metrics": {"exact_match": score}}
            for task, values in scores.items()
            for i, score in enumerate(values)
        ]
        members = {"reading": ["a", "b"], "news": ["c"]}
        return Way(name, {"answers": answers, "members": members})

    before = {"a": [0, 0, 1, 0], "b": [0, 1], "c": [0, 0, 0]}
    after = {"a": [1, 0, 1, 1], "b": [1, 1, 1], "c": [1, 0, 1]}  # One more example of b.
    lines = compared([way("untuned", before), way("tuned", after)])
    assert [line.name for line in lines] == ["a", "b", "c", "reading", "mean over tasks"]
    a, b, c, reading, mean = lines
    assert (a.means, b.means, b.n_examples) == ([0.25, 0.75], [0.5, 1.0], 2)
    assert (reading.means, reading.n_tasks) == ([0.375, 0.875], 2)
    assert mean.means == pytest.approx([0.25, (0.75 + 1 + 2 / 3) / 3])
    for line in lines:
        [(gain, low, high)] = line.gains
        assert gain == pytest.approx(line.means[1] - line.means[0])
        assert low <= gain <= high
    assert a.intervals[0] == interval_of_scores([0, 0, 1, 0])
    with pytest.raises(UserError, match="no task has scores of metric 'bleu'"):
        compared([way("untuned", before), way("tuned", after)], "bleu")
