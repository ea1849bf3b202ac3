"""Rank classification against one choice at a time with full logits, and `transformers`."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import (
    Config,
    DataConfig,
    DecoderConfig,
    EncoderDecoderConfig,
    EvaluationConfig,
    FormatConfig,
    MeshConfig,
)
from ift_jax.data.mixture import Mixture
from ift_jax.errors import UserError
from ift_jax.evaluation import rank_choices
from ift_jax.evaluation.evaluate import evaluate, plan
from ift_jax.evaluation.rank_choices import Choices, log_probs
from ift_jax.evaluation.score_table import table
from ift_jax.evaluation.shared_prefix import prefix_log_likelihoods
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.models import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import make_mesh
from ift_jax.text.examples import ExampleFormatter
from ift_jax.text.rows.parse_record import parse_record
from tests.data.made_stores import make_store
from tests.small_models import random_params
from tests.text.small_tokenizers import sentencepiece_tokenizer

MODELS = {
    "decoder": DecoderConfig(
        vocab_size=480,
        d_model=24,
        n_layers=2,
        n_heads=2,
        n_kv_heads=1,
        head_dim=12,
        d_ff=32,
        final_softcap=3.0,
    ),
    "encoder_decoder": EncoderDecoderConfig(
        vocab_size=480,
        d_model=24,
        n_encoder_layers=1,
        n_decoder_layers=2,
        n_heads=2,
        head_dim=12,
        d_ff=32,
        tied_embedding=True,
    ),
}
# Different numbers of choices. One example has two right answers; in another, one choice begins
# with another.
RECORDS = [
    {"inputs": "Is it so?", "targets": "yes", "choices": ["yes", "no"]},
    {
        "inputs": "Count the old apples again.",
        "targets": "two",
        "choices": ["two", "two apples", "twenty", "a", "none of them"],
    },
    {
        "inputs": "Name a color",
        "targets": "red",
        "references": ["blue"],
        "choices": ["blue", "red", "stone"],
    },
    {"inputs": "One only", "targets": "one", "choices": ["one"]},
]


@functools.cache
def opened(architecture, template="plain", prefix=False, **evaluation):
    """A text generator and random parameters."""
    config = Config(
        model=MODELS[architecture],
        format=FormatConfig(template, bidirectional_prefix=prefix),
        data=DataConfig(max_length=400, inputs_length=64, targets_length=32),
        evaluation=EvaluationConfig(
            **{"examples": 10, "batch_size": 4, "max_new_tokens": 4} | evaluation
        ),
    )
    model = build_model(config.model)
    return TextGenerator(config, sentencepiece_tokenizer(), model), random_params(model)


def encoded(text_generator, records=RECORDS):
    formatter = ExampleFormatter.from_config(text_generator.config, text_generator.tokenizer)
    return [formatter.encode(parse_record(r, f"r:{i}"))[0] for i, r in enumerate(records)]


def slow(text_generator, params, example):
    """Each choice alone, without padding, by the logits of every position."""
    model, found = text_generator.model, []
    for _, ids in example.choices:
        choice = np.array(ids, np.int32)[None]
        if text_generator.config.model.architecture == "decoder":
            n = example.prompt_length
            tokens = np.concatenate([example.tokens[None, :n], choice], axis=1)
            batch = {"tokens": tokens, **_structure("", tokens)}
            if text_generator.config.format.bidirectional_prefix:
                batch["prefix_mask"] = np.arange(tokens.shape[1])[None] < n
            states = model.hidden(params, batch)[:, n - 1 : -1]
        else:
            source, before = example.encoder_tokens[None], np.pad(choice, ((0, 0), (1, 0)))[:, :-1]
            batch = {"encoder_tokens": source, "decoder_tokens": before}
            batch |= _structure("encoder_", source) | _structure("decoder_", before)
            states = model.hidden(params, batch)
        log_p = np.asarray(jax.nn.log_softmax(model.logits(params, states)))
        found.append(float(np.take_along_axis(log_p, choice[..., None], 2).sum()))
    return found


def _structure(prefix, tokens):
    positions = np.arange(tokens.shape[1], dtype=np.int32)[None]
    return {f"{prefix}segment_ids": np.ones_like(tokens), f"{prefix}positions": positions}


def scores(text_generator, params, examples):
    asked = []
    for e in examples:
        decoder = text_generator.config.model.architecture == "decoder"
        prompt = e.tokens[: e.prompt_length] if decoder else e.encoder_tokens
        asked.append(Choices(prompt.tolist(), [ids for _, ids in e.choices], e.prefix_length))
    return list(log_probs(text_generator.model, params, text_generator.config, asked).values())


@pytest.mark.parametrize(
    ("architecture", "prefix"), [("decoder", True), ("encoder_decoder", False)]
)
def test_scores_are_those_of_one_choice_at_a_time(architecture, prefix, monkeypatch):
    batches = []

    def counted(model, params, batch, bidirectional):
        batches.append(batch)
        return prefix_log_likelihoods(model, params, batch, bidirectional)

    monkeypatch.setattr(rank_choices, "prefix_log_likelihoods", counted)
    text_generator, params = opened(architecture, prefix=prefix)
    examples = encoded(text_generator)
    got = scores(text_generator, params, examples)
    assert [len(of) for of in got] == [2, 5, 3, 1]
    # A batch of 4 rows reads each of its prompts once.
    rows = [np.count_nonzero(batch.target_lengths_B) for batch in batches]
    assert rows == [4, 4, 3]
    assert sum(len(batch.prompts_NxP) for batch in batches) < sum(rows)
    for of, example in zip(got, examples, strict=True):
        np.testing.assert_allclose(of, slow(text_generator, params, example), atol=2e-4)
    # Scores are sums; with `length_normalize`, means.
    normalized = dataclasses.replace(text_generator.config.evaluation, length_normalize=True)
    config = dataclasses.replace(text_generator.config, evaluation=normalized)
    normalizing = TextGenerator(config, text_generator.tokenizer, text_generator.model)
    mean = scores(normalizing, params, examples)
    for of, sums, example in zip(mean, got, examples, strict=True):
        lengths = [len(ids) for _, ids in example.choices]
        np.testing.assert_allclose(of, np.array(sums) / lengths, atol=1e-6)


def test_choices_on_both_sides_of_longrope_are_scored_as_alone():
    """A prompt is read once for each side."""
    example = encoded(opened("decoder")[0])[1]
    lengths = sorted(example.prompt_length + len(ids) for _, ids in example.choices)
    assert lengths[2] < lengths[3]
    model = build_model(
        dataclasses.replace(
            MODELS["decoder"],
            rope_scaling="longrope",
            rope_original_length=lengths[2],
            rope_short_factors=(1.0, 1.5, 2.0, 2.5, 3.0, 3.5),
            rope_long_factors=(1.0, 4.0, 6.0, 8.0, 10.0, 12.0),
        )
    )
    text_generator, params = opened("decoder")
    config = dataclasses.replace(text_generator.config, model=model.config)
    text_generator = TextGenerator(config, text_generator.tokenizer, model)
    [got] = scores(text_generator, params, [example])
    np.testing.assert_allclose(got, slow(text_generator, params, example), atol=2e-4)


@pytest.mark.parametrize(
    ("architecture", "template"),
    [("decoder", "plain"), ("decoder", "alpaca"), ("encoder_decoder", "plain")],
)
def test_a_choice_has_the_ids_that_training_gives_this_answer(architecture, template):
    text_generator, _ = opened(architecture, template)
    formatter = ExampleFormatter.from_config(text_generator.config, text_generator.tokenizer)
    for record, example in zip(RECORDS, encoded(text_generator), strict=True):
        assert [text for text, _ in example.choices] == record["choices"]
        for text, ids in example.choices:
            plain = {"inputs": record["inputs"], "targets": text}
            (trained,) = formatter.encode(parse_record(plain, "r"))
            assert ids == trained.tokens[trained.weights > 0].tolist()
            assert ids[-1] == formatter.stop_ids[0]  # It ends as an answer ends.
            if architecture == "decoder":  # All choices follow the same prompt.
                prompt = trained.tokens[: trained.prompt_length]
                np.testing.assert_array_equal(prompt, example.tokens[: example.prompt_length])


def test_scores_are_the_same_on_a_mesh_and_few_programs_are_compiled():
    for architecture in MODELS:
        text_generator, params = opened(architecture)
        examples = encoded(text_generator)
        want = scores(text_generator, params, examples)
        before = prefix_log_likelihoods._cache_size()
        # Other batches have the same shapes.
        scores(text_generator, params, [*examples[::-1], *examples])
        assert prefix_log_likelihoods._cache_size() <= before + 1
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        shardings = rules.tree_shardings(
            mesh, text_generator.model.logical_axes, text_generator.model.shapes
        )
        with jax.set_mesh(mesh):
            got = scores(text_generator, jax.device_put(params, shardings), examples)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-4)


@pytest.mark.parametrize("architecture", MODELS)
def test_evaluation_ranks_where_there_are_choices(architecture, tmp_path):
    text_generator, params = opened(architecture)
    examples = encoded(text_generator)
    free = encoded(text_generator, [{"inputs": "Say it", "targets": "it"}])
    names = ["free", "one", "other"]
    made = [free, examples, examples[:2]]
    stores = [make_store(tmp_path, n, [of]) for n, of in zip(names, made, strict=True)]
    for store in stores[1:]:
        store.manifest["group"] = "both"
    metrics = [[], ["ift_jax.metrics:exact_match"], []]
    planned = plan(text_generator, Mixture(names, np.ones(3), stores, metrics))
    result = evaluate(text_generator, params, planned)

    best = [int(np.argmax(of)) for of in scores(text_generator, params, examples)]
    chosen = [e.choices[i][0] for e, i in zip(examples, best, strict=True)]
    answers = [a for a in result["answers"] if a["task"] == "one"]
    assert [a["answer"] for a in answers] == chosen
    right = [{"yes"}, {"two"}, {"red", "blue"}, {"one"}]  # Any right answer counts.
    hits = [text in accepted for text, accepted in zip(chosen, right, strict=True)]
    one = result["tasks"]["one"]
    assert one == {"examples": 4, "accuracy": np.mean(hits), "baseline": 0.25}
    assert result["tasks"]["other"]["accuracy"] == np.mean(hits[:2])
    assert set(result["tasks"]["free"]) == {"examples", "exact_match", "baseline", "stopped"}
    group = result["groups"]["both"]
    assert group["tasks"] == 2 and group["median"] == np.mean([np.mean(hits), np.mean(hits[:2])])
    lines = table("title", result)
    assert "accuracy of choice" in lines[1] and "exact match" in lines[1]
    assert lines[-1].startswith("  both: median") and "over 2 templates" in lines[-1]


def test_a_task_with_choices_in_some_examples_is_scored_as_two(tmp_path):
    text_generator, params = opened("decoder")
    free = encoded(text_generator, [{"inputs": f"Say {i}", "targets": "it"} for i in range(3)])
    ranked = encoded(text_generator)[:2]
    mixed = make_store(tmp_path, "mixed", [[free[0], ranked[0], free[1], ranked[1], free[2]]])
    mixed.manifest["group"] = "a group"
    metrics = [["ift_jax.metrics:exact_match", "ift_jax.metrics:rouge_l"]]
    planned = plan(text_generator, Mixture(["mixed"], np.ones(1), [mixed], metrics))
    result = evaluate(text_generator, params, planned)
    choices, generated = result["tasks"]["mixed (choices)"], result["tasks"]["mixed (free)"]
    assert set(choices) == {"examples", "accuracy", "baseline", "rouge_l"}
    assert set(generated) == {"examples", "exact_match", "baseline", "stopped", "rouge_l"}
    assert (choices["examples"], generated["examples"]) == (2, 3)
    answers = [answer for answer in result["answers"] if "choices" in answer]
    right = [answer["answer"] in answer["references"] for answer in answers]
    assert choices["accuracy"] == np.mean(right)
    assert result["overall"]["examples"] == 5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"choices": ["no", "maybe"]}, "r: field 'choices': expected the answer 'yes'"),
        ({"choices": "yes"}, "r: field 'choices': .*expected a list of texts or its JSON"),
        ({"choices": [1]}, r"r: choices\[0\]: expected a text"),
        (
            {"messages": [{"role": "user", "content": "a"}], "choices": ["yes"]},
            "r: fits 'messages' and 'inputs_targets'; set data.schema",
        ),
    ],
)
def test_wrong_choices_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        parse_record({"inputs": "So?", "targets": "yes"} | fields, "r")


@pytest.mark.parametrize("family", ["llama", "1.1"])
def test_against_transformers(family):
    pytest.importorskip("torch", reason="the reference models are torch modules")
    pytest.importorskip("transformers", reason="the reference models live there")
    import torch

    from tests.models import hugging_face as hf

    reference, config = hf.reference_and_config(family)
    params = hf.our_params(reference, config)
    rng = np.random.default_rng(3)

    def ids(n):
        return rng.integers(3, hf.VOCAB, n).tolist()

    examples = [
        Choices(ids(n), [[*ids(m), 1] for m in lengths], n)
        for n, lengths in ((7, (1, 3)), (20, (2, 2, 9, 4)), (3, (5,)))
    ]
    whole = Config(model=config, evaluation=EvaluationConfig(batch_size=3))
    got = log_probs(build_model(config), params, whole, examples).values()
    for of, example in zip(got, examples, strict=True):
        for score, answer in zip(of, example.answers, strict=True):
            with torch.no_grad():
                if family == "llama":
                    tokens = torch.tensor([[*example.prompt, *answer]])
                    logits = reference(tokens).logits[:, len(example.prompt) - 1 : -1]
                else:
                    source, labels = torch.tensor([example.prompt]), torch.tensor([answer])
                    logits = reference(input_ids=source, labels=labels).logits
            log_p = torch.log_softmax(logits[0], -1)
            want = float(log_p[torch.arange(len(answer)), torch.tensor(answer)].sum())
            assert score == pytest.approx(want, abs=5e-4)
