"""The functions of the package do what the commands do."""

import dataclasses
import json
import re

import numpy as np
import pytest

import ift_jax
from ift_jax.commands.main import main
from ift_jax.config.schema import Config, FormatConfig
from ift_jax.evaluation.continuations import Continuation
from ift_jax.evaluation.log_likelihoods import log_likelihoods
from ift_jax.models import build_model
from tests.small_models import ARCHITECTURES, CONFIG, random_model, random_params, write_workdir
from tests.text.small_tokenizers import small_tokenizer

pytestmark = pytest.mark.usefixtures("one_device")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    write_workdir(folder / "model")
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {k}"},
                {"role": "assistant", "content": "ok"},
            ]
        }
        for k in range(40)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return ift_jax.load(str(folder / "model"))


def test_answers_are_those_of_the_command(folder, model, capsys):
    workdir = str(folder / "model")
    assert main(["generate", "--workdir", workdir, "--prompt", "Hi", "--max-new-tokens", "8"]) == 0
    expected = capsys.readouterr().out.rstrip("\n")
    assert model.generate("Hi", max_new_tokens=8) == expected
    messages = [{"role": "user", "content": "Hi"}]
    assert model.generate([messages, "Hi"], max_new_tokens=8) == [expected, expected]
    assert model.generate(messages, max_new_tokens=8) == expected
    assert model.chat(max_new_tokens=8).reply("Hi") == expected


def test_several_answers_and_all_that_is_known_of_them(model):
    from ift_jax.decoding import BeamSearch, Options

    best = model.generate("Hi", max_new_tokens=8, num_beams=2, n=2)
    options = Options(8, n=2, beams=BeamSearch(2), logprobs=0)
    [output, other] = model.complete(["Hi", "Ho"], options)
    assert [answer.text.strip() for answer in output.completions] == best
    assert model.generate(["Hi"], max_new_tokens=8, num_beams=2) == best[:1]
    for answer in other.completions:
        total = sum(token.logprob for token in answer.logprobs)
        assert answer.score == pytest.approx(total / len(answer.ids), rel=1e-4)


def test_a_conversation_keeps_its_turns(model):
    conversation = model.chat(system="Be brief.", max_new_tokens=4)
    answer = conversation.reply("Hi")
    assert conversation.messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": answer},
    ]


def test_a_score_is_the_sum_of_log_probabilities(model):
    network, params = random_model()
    tokenizer = model._loaded.tokenizer
    formatter = model._text_generator.formatter
    from ift_jax.text.records import Message

    prompt = formatter.prompt([Message("user", "Hi")]).tolist()
    answer = [*tokenizer.encode("yes"), formatter.stop_ids[0]]
    tokens = np.array([[*prompt, *answer]], np.int32)
    inputs = {
        "tokens": tokens,
        "segment_ids": np.ones_like(tokens),
        "positions": np.arange(tokens.shape[1], dtype=np.int32)[None],
    }
    w_DxV, _ = network.head(params)
    logits_LxV = np.asarray(network.hidden(params, inputs)[0] @ w_DxV, np.float64)
    log_probs_LxV = logits_LxV - np.log(np.exp(logits_LxV).sum(-1, keepdims=True))
    expected = sum(log_probs_LxV[len(prompt) - 1 + k, token] for k, token in enumerate(answer))
    assert model.score("Hi", "yes") == pytest.approx(expected, abs=1e-4)


def test_a_score_of_an_encoder_decoder_has_the_prompt_of_training(tmp_path):
    config = Config(
        model=dataclasses.replace(ARCHITECTURES["encoder_decoder"], vocab_size=480),
        data=CONFIG.data,
        tokenizer=CONFIG.tokenizer,
        format=FormatConfig(template="plain"),
        train=CONFIG.train,
    )
    network = build_model(config.model)
    params = random_params(network)
    model = ift_jax.load(write_workdir(tmp_path / "run", config, params))
    tokenizer, eos = small_tokenizer("sentencepiece"), [model._text_generator.formatter.stop_ids[0]]
    prompt, answer = [*tokenizer.encode("Anna has"), *eos], [*tokenizer.encode("1 apple"), *eos]
    expected = log_likelihoods(network, params, config, [Continuation(prompt, answer, 0)])[0]
    assert model.score("Anna has", "1 apple") == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.slow
def test_training_and_export(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    fields = {
        "train.batch_size": 8,
        "train.epochs": 1.0,
        "optimizer.learning_rate": 0.01,
        "train.preview_prompts": 0,
        "train.report": False,
        "data.max_length": 32,
        "tokenizer.added_tokens": ("<|im_start|>", "<|im_end|>"),
    }
    workdir = ift_jax.train("model", "rows.jsonl", workdir="W", fields=fields, quiet=True)
    assert workdir == str(folder / "W")
    assert capsys.readouterr().out == ""
    config = json.loads((folder / "W" / "config.json").read_text())
    assert config["train"]["epochs"] == 1.0
    assert config["tokenizer"]["added_tokens"] == ["<|im_start|>", "<|im_end|>"]
    trained = ift_jax.load(workdir)
    assert trained.score("Say 1", "ok") > ift_jax.load("model").score("Say 1", "ok")
    settings = {"evaluation.examples": 2, "evaluation.max_new_tokens": 4}
    result = ift_jax.evaluate(workdir, fields=settings)
    shown = capsys.readouterr().out
    flags = [f"--config.{name}={value}" for name, value in settings.items()]
    assert main(["eval", "--workdir", workdir, "--output", "scores.json", *flags]) == 0
    assert capsys.readouterr().out == shown
    assert result["overall"] == json.loads((folder / "scores.json").read_text())["overall"]
    ift_jax.inspect(config="W/config.yaml", which="eval")
    shown = capsys.readouterr().out
    assert "Say" in shown and "⟦ok<|im_end|>⟧" in shown
    assert main(["inspect", "--config", "W/config.yaml", "--which", "eval"]) == 0
    assert capsys.readouterr().out == shown
    trained.export("exported")
    assert json.loads((folder / "exported" / "config.json").read_text())["hidden_size"] == (
        CONFIG.model.d_model
    )
    card = (folder / "exported" / "README.md").read_text()
    assert "finetuned from `model`" in card
    [trained] = re.findall(r"\| `data_rows` \| 100\.0% \| 38 \| (\d+) \| 0 \| 0 \|", card)
    assert f"| trained tokens seen | {trained} |" in card  # In one epoch, each of them once.


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda model: ift_jax.load("/nowhere"), "/nowhere"),
        (lambda model: ift_jax.train("m", workdir="/tmp/none-of-it"), "expected --data FILES"),
        (lambda model: ift_jax.inspect(), "expected config, or model and data"),
        (lambda model: ift_jax.inspect(config="c.yaml", which="test"), "expected one of train"),
        (lambda model: ift_jax.evaluate("/nowhere"), "/nowhere"),
        (lambda model: ift_jax.evaluate("/nowhere", which="test"), "which: .* got 'test'"),
        (lambda model: model.generate("Hi", temperature=-1), "temperature"),
        (lambda model: model.generate("Hi", top_p=0.5), "top_p: 0.5 needs a temperature above 0"),
        (lambda model: model.generate([{"role": "nobody", "content": "x"}]), "nobody"),
        (lambda model: model.generate("Hi " * 200), "max_length 128"),
    ],
)
def test_a_mistake_is_a_user_error(model, call, expected):
    with pytest.raises(ift_jax.UserError, match=expected):
        call(model)
