"""Rewards of models: a scalar head's score equals that of transformers, a judge's its sums."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch
import transformers

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.reward_model_source import RewardModelSource
from ift_jax.decoding import Options, Request
from ift_jax.errors import UserError
from ift_jax.synthesis.model_rewards import Judge, RewardModel
from ift_jax.synthesis.rewards import TOO_LONG, Sample
from ift_jax.text.records import Message, Record
from tests import small_models
from tests.interop.folders import write_tokenizer
from tests.models import hugging_face as hf

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] == 'user' and '<s>' or '' }} {{ m['content'] }} </s> "
    "{% endfor %}"
)


def write_reward_model(folder, name, num_labels=1, **fields):
    """A random sequence-classification model of a family of `hf.DECODERS`."""
    kind, own = hf.DECODERS[name]
    config = getattr(transformers, f"{kind}Config")(
        **hf.SIZES | own | {"num_labels": num_labels} | fields
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    hf.randomize(model).save_pretrained(str(folder))
    write_tokenizer(folder, chat_template=TEMPLATE)
    return model


def sample(prompt, completion):
    record = Record((Message("user", prompt),), where="p.jsonl:1")
    return Sample("p.jsonl:1, sample 0", {}, record, completion)


# Untied; tied with normalized heads; local layers, with logits and attention capped.
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2"])
def test_scores_equal_those_of_transformers(name, tmp_path):
    reference = write_reward_model(tmp_path, name)
    model = RewardModel(RewardModelSource(str(tmp_path)), batch_size=4)
    rng = np.random.default_rng(1)
    rows = [rng.integers(3, hf.VOCAB, n).tolist() for n in (3, 16, 9, 14)]
    rows[2][-1] = 0  # A padding token at the end is not the one that is scored.
    rows[3][4] = 0
    with torch.no_grad():
        expected = [reference(torch.tensor([row])).logits.item() for row in rows]
    got = model.score_ids(rows)
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=2e-4)
    assert np.ptp(expected) > 0.3, "the scores tell the rows apart"


def test_a_conversation_is_scored_in_the_models_own_template(tmp_path):
    reference = write_reward_model(tmp_path, "llama")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    pairs = [("w5 w6 w7", "w9"), ("w5", "w10 w11 w12 w13"), ("w20 w21", "w22")]
    expected = []
    for prompt, completion in pairs:
        turns = [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": completion},
        ]
        ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            expected.append(reference(input_ids=ids["input_ids"]).logits.item())
    model = RewardModel(RewardModelSource(str(tmp_path)), batch_size=4)
    outcomes = model.score([sample(*pair) for pair in pairs])
    np.testing.assert_allclose([one.value for one in outcomes], expected, atol=2e-4)
    [long] = model.score([sample("w5 " * 400, "w6")])
    assert long.value is None and long.reason == TOO_LONG and "the model takes 256" in long.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(num_labels=2),
            r"score.weight has the shape \(2, 48\), expected \(1, 48\): one label",
        ),
        (dict(headless=True), "no tensor score.weight; expected a sequence-classification model"),
    ],
)
def test_a_folder_that_is_no_reward_model_is_refused(tmp_path, change, message):
    if change.pop("headless", False):
        hf.save(hf.reference("llama"), tmp_path)
        write_tokenizer(tmp_path)
    else:
        write_reward_model(tmp_path, "llama", **change)
    with pytest.raises(UserError, match=message):
        RewardModelSource(str(tmp_path))


def test_a_judge_gives_the_mean_log_probability_of_the_answer(tmp_path, monkeypatch):
    small_models.compile_one_program(monkeypatch)
    workdir = small_models.write_workdir(tmp_path / "judge")
    source = open_model_source(workdir)
    samples = [sample("Name a color", "red"), sample("Name a color", "a long blue answer")]
    judge = Judge(source, batch_size=2)
    values = [one.value for one in judge.score(samples)]

    text_generator, generator = small_models.open_random_model()
    for given, value in zip(samples, values, strict=True):
        row = judge._continuation(given)
        ids = [*row.prompt, *row.answer]
        [output] = generator.complete([Request(ids, Options(0, prompt_logprobs=0))])
        of_answer = [token.logprob for token in output.prompt_logprobs[len(row.prompt) :]]
        assert value == pytest.approx(np.mean(of_answer), abs=1e-4)

    # Asked about a completion, it is the answer that counts, without the stop token.
    asked = Judge(source, 2, "Is this right? {prompt}: {completion}", "Yes")
    row = asked._continuation(samples[0])
    assert "Is this right? Name a color: red" in asked._loaded.tokenizer.decode(list(row.prompt))
    assert sum(row.weights) == pytest.approx(1) and row.weights[-1] == 0
    assert asked.score(samples)[0].value != values[0]
    assert asked.settings() != judge.settings()
    with pytest.raises(UserError, match="--judge-question: expected a text with {completion}"):
        Judge(source, 2, "Right?", "Yes")
