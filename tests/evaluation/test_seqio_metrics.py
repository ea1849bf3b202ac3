"""SeqIO's contract for metrics: answers that are the targets, and SeqIO's own Evaluator."""

import dataclasses
import json
import math

import numpy as np
import pytest
import seqio

from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    FormatConfig,
    TokenizerConfig,
)
from ift_jax.evaluation.evaluate import evaluate, plan
from ift_jax.evaluation.metric_values import json_text
from ift_jax.evaluation.score_table import table
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.metrics import SEQIO_METRICS
from ift_jax.models import build_model
from ift_jax.models.model import resolve_vocab
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.open_or_prepare import open_or_prepare
from tests.evaluation import seqio_metric_tasks as tasks
from tests.small_models import random_params
from tests.text.small_tokenizers import sentencepiece_bytes

pytestmark = pytest.mark.usefixtures("own_registry")
MODELS = {
    "decoder": DecoderConfig(d_model=16, n_layers=1, n_heads=2, n_kv_heads=1, head_dim=8, d_ff=24),
    "encoder_decoder": EncoderDecoderConfig(
        d_model=16, n_encoder_layers=1, n_decoder_layers=1, n_heads=2, head_dim=8, d_ff=24
    ),
}


def make_config(tmp_path, names, architecture="decoder", template="alpaca", **tokenizer):
    """The config of a run whose mixture has these tasks."""
    seqio_registry.import_modules(("tests.evaluation.seqio_metric_tasks",), "")
    seqio.MixtureRegistry.add("m_all", [(name, 1.0) for name in names])
    if not tokenizer:
        (tmp_path / "own.model").write_bytes(sentencepiece_bytes())
        tokenizer = {"path": str(tmp_path / "own.model")}
    return Config(
        model=MODELS[architecture],
        tokenizer=TokenizerConfig(**tokenizer),
        format=FormatConfig(template),
        data=DataConfig(
            modules=("tests.evaluation.seqio_metric_tasks",),
            mixture="m_all",
            store_dir=str(tmp_path / "stores"),
            processes=1,
        ),
        evaluation=EvaluationConfig(examples=tasks.N, batch_size=8),
    )


def evaluated(config, monkeypatch, given=None):
    """The result of evaluating a model that gives the targets, or what `given` returns instead.

    `given(i, ids)` makes the answer to the example i, whose target has these ids.
    """
    tokenizer, mixture = open_or_prepare(config, "eval", log=lambda _: None)
    model = build_model(resolve_vocab(config.model, tokenizer.vocab_size))
    config = dataclasses.replace(config, model=model.config)
    text_generator = TextGenerator(config, tokenizer, model)
    outputs = []
    for store in mixture.stores:
        for i in range(len(store)):
            ids = store.tokens(i)[store.prompt_lengths[i] :].tolist()
            outputs.append(given(i, ids) if given else ids)

    monkeypatch.setattr(TextGenerator, "generate", lambda *_: dict(enumerate(outputs)))
    planned = plan(text_generator, mixture)
    return evaluate(text_generator, random_params(model), planned), mixture


def test_answers_that_are_the_targets_are_right(tmp_path, monkeypatch):
    names = [*tasks.TEXT_CASES, "m_clu", "m_object"]
    result, mixture = evaluated(make_config(tmp_path, names), monkeypatch)
    assert all(metrics == [SEQIO_METRICS] for metrics in mixture.metric_fns)
    scores = result["tasks"]
    assert {of["exact_match"] for of in scores.values()} == {1.0}
    assert scores["m_user"]["user_exact"] == 1.0
    assert scores["m_label"]["label_accuracy"] == scores["m_label"]["user_exact"] == 1.0
    assert scores["m_answers"]["any_answer"] == scores["m_object"]["any_answer"] == 1.0
    assert scores["m_score"]["scored"] == tasks.N
    assert scores["m_aux"]["likeliest_is_right"] is True
    assert (
        scores["m_numpy"] | {"numpy_metric": 0.5, "array": [0, 1, 2], "jax": 2.0}
        == scores["m_numpy"]
    )
    assert scores["m_scalar"]["scalar_metric"] == 1.0 and scores["m_scalar"]["said"] == "one\ntwo"
    above = {key: value for key, value in scores["m_partial"].items() if "above" in key}
    assert above == {"above": 1.0, "exact_with/above": 0.0}  # Two of the three are 0.
    assert scores["m_reference"]["n_references"] == 1.0
    assert scores["m_reference"]["user_exact"] == 1.0
    assert scores["m_lambda"]["first"] == "no"
    assert scores["m_postprocess"]["n_references"] == 1.0

    errors = {(f["task"], f["metric"]): f["error"] for f in result["failures"]}
    assert set(errors) == {
        ("m_raises", "raises"),
        ("m_image", "image_metric/image"),
        ("m_signature", "all of its own metrics"),
        ("m_postprocess", "user_exact"),
        ("m_clu", "Average"),
    }
    assert errors["m_raises", "raises"].startswith("RuntimeError: this metric always fails (")
    assert "seqio_metric_tasks.py:" in errors["m_raises", "raises"]
    assert "found Image" in errors["m_image", "image_metric/image"]
    assert "('targets', 'predictions')" in errors["m_signature", "all of its own metrics"]
    assert "model_output_type" in errors["m_clu", "Average"]
    for name in ("m_raises", "m_image", "m_clu", "m_object"):  # Nobody else lost a score.
        assert scores[name]["user_exact"] == 1.0

    # NaN is null in JSON, and left out of the means.
    assert math.isnan(scores["m_nan"]["nan_metric"])
    kinds = {type(value) for of in scores.values() for value in of.values()}
    assert kinds <= {int, float, bool, str, list}
    read = json.loads(json_text(result))
    assert read["tasks"]["m_nan"] | {"nan_metric": None, "infinite": None} == read["tasks"]["m_nan"]
    assert read["overall"]["nan_metric"] is None and read["overall"]["user_exact"] == 1.0
    assert read["tasks"]["m_user"] == scores["m_user"]

    # The screen has every metric, within its width.
    own = {key for of in scores.values() for key in of} - {"exact_match", "baseline", "stopped"}
    for width in (60, 100, 200):
        lines = table("title", result, width)
        text = " ".join(" ".join(lines).split())
        assert all(key in text for key in own)
        # Only a path is never broken.
        assert all(len(line) <= width or len(line.split()[-1]) > width // 2 for line in lines)
        assert "failed: task 'm_raises', metric 'raises': RuntimeError" in text
        assert "m_scalar: said: one two" in text


def test_scores_are_the_log_likelihoods_of_the_targets(tmp_path, monkeypatch):
    config = make_config(tmp_path, ["m_score", "m_aux"])
    normalize = dataclasses.replace(config.evaluation, length_normalize=True)
    result, _ = evaluated(dataclasses.replace(config, evaluation=normalize), monkeypatch)
    answers = {
        name: [a for a in result["answers"] if a["task"] == name] for name in result["tasks"]
    }
    targets = [answer["target_score"] for answer in answers["m_score"]]
    # The answers are the targets, so both have the same score: a sum, whatever ranking does.
    given = [answer["answer_score"] for answer in answers["m_aux"]]
    np.testing.assert_allclose(targets, given, rtol=1e-5)
    assert len(set(np.round(targets, 3))) == tasks.N and max(targets) < 0
    assert result["tasks"]["m_score"]["mean_score"] == pytest.approx(np.mean(targets))
    assert result["tasks"]["m_aux"]["likeliest"] == int(np.argmax(given))


def test_a_task_that_tokenizes_itself_scores_as_with_the_evaluator_of_seqio(tmp_path, monkeypatch):
    vocabulary = seqio.test_utils.sentencepiece_vocab()
    config = make_config(
        tmp_path,
        ["m_tokenized"],
        "encoder_decoder",
        "plain",
        path=vocabulary.sentencepiece_model_file,
    )
    other = [vocabulary.encode(label) for label in ("yes", "no", "maybe so")]

    def given(i, ids):
        """Right, wrong, no label, without EOS, or with tokens after it."""
        return [ids, [*other[i % 3], 1], other[i % 2], [*ids, 5, 6]][i % 4]

    result, mixture = evaluated(config, monkeypatch, given)
    assert result["failures"] == []
    answers = result["answers"]
    [store] = mixture.stores
    outputs = [given(i, store.tokens(i).tolist()) for i in range(tasks.N)]
    length = max(map(len, outputs))
    padded = [[*ids, *[0] * (length - len(ids))] for ids in outputs]

    evaluator = seqio.Evaluator(
        "m_tokenized",
        seqio.EncDecFeatureConverter(pack=False),
        async_compute_metrics=False,
    )

    def predict(dataset):
        return list(enumerate(padded))

    def score(dataset):
        return [(i, answers[i]["target_score"]) for i in range(tasks.N)]

    def predict_with_aux(dataset):
        return predict(dataset), {"scores": [answer["answer_score"] for answer in answers]}

    metrics, _ = evaluator.evaluate(
        compute_metrics=True,
        predict_fn=predict,
        score_fn=score,
        predict_with_aux_fn=predict_with_aux,
    )
    want = metrics.result()["m_tokenized"]
    assert 0 < want["label_accuracy"] < 1 and want["tokens_of_answers"] != length
    got = result["tasks"]["m_tokenized"]
    assert {key: got[key] for key in want} == want
