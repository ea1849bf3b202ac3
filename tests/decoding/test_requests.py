"""Requests: each row has its own settings, and no answer depends on the rest of its batch."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.config.schema import MeshConfig
from ift_jax.decoding import BeamSearch, Generator, Options, Request, Sampling, Stops
from ift_jax.decoding.decode_batch import Layout, begin_batch
from ift_jax.decoding.request_batch import RequestBatch
from ift_jax.errors import UserError
from ift_jax.models import build_model
from ift_jax.sharding import rules
from ift_jax.sharding.mesh import make_mesh
from tests.decoding.test_generate import (
    CONFIGS,
    N_NEW,
    PROMPTS,
    as_row,
    each_architecture,
    random_model,
    spell,
)
from tests.models.architectures import jitted_logits

DRAWN = Sampling(temperature=1.3)


def open_generator(architecture="decoder", **options):
    return Generator(*random_model(architecture), stops=Stops((), (), spell), pad_id=0, **options)


REQUESTS = [
    Request(PROMPTS[0], Options(N_NEW)),
    Request(PROMPTS[1], Options(5, Sampling(1.0, top_k=5), seed=7, logprobs=2)),
    Request(PROMPTS[2], Options(N_NEW, DRAWN, seed=2**40 + 3, n=3, logprobs=0)),
    Request(PROMPTS[3], Options(9, Sampling(0.9, top_p=0.9, repetition_penalty=1.2), seed=7), 4),
    Request(PROMPTS[4], Options(N_NEW, DRAWN, seed=7, n=3)),
]


def assert_same(got, want):
    """Ids and reasons are equal, log-probabilities to float32's rounding."""
    for one, other in zip(got.completions, want.completions, strict=True):
        assert one[:3] == other[:3]
        assert (one.logprobs is None) == (other.logprobs is None)
        for a, b in zip(one.logprobs or [], other.logprobs or [], strict=True):
            assert (a.id, [i for i, _ in a.top]) == (b.id, [i for i, _ in b.top])
            assert a.logprob == pytest.approx(b.logprob, abs=1e-4)


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    monkeypatch.setattr("ift_jax.decoding.request_batch.bucket", lambda n: 24 if n <= 24 else 48)


@each_architecture
def test_answers_do_not_depend_on_the_batch(architecture):
    generator = open_generator(architecture)
    together = generator.complete(REQUESTS)
    assert [len(output.completions) for output in together] == [1, 1, 3, 1, 3]
    assert [len(output.completions[0].ids) for output in together] == [N_NEW, 5, N_NEW, 9, N_NEW]
    [alone] = generator.complete(REQUESTS[2:3])
    assert_same(together[2], alone)
    if architecture == "decoder":
        [alone] = generator.complete(REQUESTS[1:2])
        assert_same(together[1], alone)
    samples = [tuple(completion.ids) for completion in together[2].completions]
    assert len(set(samples)) == 3


def test_a_seed_and_an_index_each_change_what_is_drawn():
    generator = open_generator()
    of_seed = [
        Request(PROMPTS[0], Options(N_NEW, DRAWN, seed=seed), index)
        for seed, index in [(1, 0), (2, 0), (1, 1), (1 + 2**32, 0), (-1, 0), (1, 0)]
    ]
    *different, again = [output.completions[0].ids for output in generator.complete(of_seed)]
    assert len(set(map(tuple, different))) == 5
    assert again == different[0]


def test_each_request_has_its_own_stops():
    generator = open_generator()
    [free] = generator.complete([Request(PROMPTS[0], Options(N_NEW))])
    ids = free.completions[0].ids
    assert free.completions[0].finish_reason == "length"
    string = spell(ids[:4])[-3:]
    options = Options(N_NEW)
    by_id, by_string, by_none = (
        output.completions[0]
        for output in generator.complete(
            [
                Request(PROMPTS[0], dataclasses.replace(options, stop_ids=(ids[2],))),
                Request(PROMPTS[0], dataclasses.replace(options, stop_strings=(string,))),
                Request(PROMPTS[0], options),
            ]
        )
    )
    assert by_id.ids == ids[: ids.index(ids[2]) + 1]
    assert by_id.text == spell(ids[: ids.index(ids[2])])
    assert by_string.text == spell(ids)[: spell(ids).index(string)]
    assert by_string.ids == ids[: len(by_string.ids)] and len(by_string.ids) <= 4
    assert [by_id.finish_reason, by_string.finish_reason, by_none.finish_reason] == [
        "stop",
        "stop",
        "length",
    ]
    assert by_none.ids == ids


def full_log_probs(architecture, prompt, answer):
    """Log-softmax at each token of prompt and answer, from one pass without a cache."""
    model, params = random_model(architecture)
    text = [*prompt, *answer] if architecture == "decoder" else [0, *answer]
    if architecture == "decoder":
        batch = as_row(text)
    else:
        batch = {f"encoder_{name}": array for name, array in as_row(prompt).items()}
        batch |= {f"decoder_{name}": array for name, array in as_row(text).items()}
    logits = np.asarray(jitted_logits(model)(params, batch), np.float64)[0, : len(text)]
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


def check_log_probs(found, log_probs, ids, n_top):
    for one, row, token in zip(found, log_probs, ids, strict=True):
        assert one.id == token
        assert one.logprob == pytest.approx(row[token], abs=1e-4)
        assert [i for i, _ in one.top] == np.argsort(-row, kind="stable")[:n_top].tolist()
        np.testing.assert_allclose([p for _, p in one.top], np.sort(row)[::-1][:n_top], atol=1e-4)


@each_architecture
def test_log_probabilities_are_those_of_the_model(architecture):
    """Before temperature, penalty and top_k, which change what is drawn."""
    generator = open_generator(architecture)
    sampling = Sampling(temperature=0.5, top_k=7, repetition_penalty=1.3)
    prompt = PROMPTS[0]
    options = Options(N_NEW, sampling, seed=3, n=2, logprobs=3)
    [output] = generator.complete([Request(prompt, options)])
    for completion in output.completions:
        rows = full_log_probs(architecture, prompt, completion.ids)
        first = len(prompt) - 1 if architecture == "decoder" else 0
        check_log_probs(completion.logprobs, rows[first:-1], completion.ids, 3)


def test_a_prompt_has_log_probabilities_too(monkeypatch):
    monkeypatch.setattr("ift_jax.decoding.log_probs.CHUNK", 600)  # Several chunks of positions.
    generator = open_generator()
    asked = [Options(0, prompt_logprobs=2), Options(3, prompt_logprobs=0, logprobs=1), Options(4)]
    requests = [Request(PROMPTS[i], options) for i, options in zip((3, 0, 1), asked, strict=True)]
    echoed, continued, plain = generator.complete(requests)
    [nothing] = echoed.completions
    assert nothing[:3] == ([], "", "length")
    assert echoed.prompt_logprobs[0] is None
    rows = full_log_probs("decoder", PROMPTS[3], [])
    check_log_probs(echoed.prompt_logprobs[1:], rows[:-1], PROMPTS[3][1:], 2)
    rows = full_log_probs("decoder", PROMPTS[0], [])
    check_log_probs(continued.prompt_logprobs[1:], rows[:-1], PROMPTS[0][1:], 0)
    assert len(continued.completions[0].ids) == 3 and plain.prompt_logprobs is None


def test_a_stream_grows_into_the_answer():
    generator = open_generator()
    requests = REQUESTS[2:5:2]
    *parts, last = generator.stream(requests, block=5)
    assert [len(part[0].completions[0].ids) for part in parts] == [1, 6, 11]
    assert {c.finish_reason for part in parts for output in part for c in output.completions} == {
        ""
    }
    for got, want in zip(last, generator.complete(requests), strict=True):
        assert_same(got, want)
    for part in parts:
        for so_far, done in zip(part, last, strict=True):
            for one, other in zip(so_far.completions, done.completions, strict=True):
                assert other.ids[: len(one.ids)] == one.ids
                assert other.text.startswith(one.text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(max_new_tokens=0), "max_new_tokens: expected 1 to 1,073,741,824; got 0"),
        (dict(max_new_tokens=2**31), "max_new_tokens: expected 1 to 1,073,741,824; got 2147483648"),
        (dict(n=0), "n: expected 1 or more"),
        (dict(n=2), "n: 2 greedy answers would be the same"),
        (dict(logprobs=-1), "logprobs: expected 0 to"),
        (dict(prompt_logprobs=5000), "prompt_logprobs: expected 0 to"),
        (dict(stop_strings=("",)), "stop_strings"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Options(**options)


def test_requests_that_the_model_cannot_answer_are_refused():
    _, params = random_model("decoder")
    model = build_model(dataclasses.replace(CONFIGS["decoder"], max_length=40))
    generator = Generator(model, params, stops=Stops(), pad_id=0)
    cases = [
        (Request([], Options()), "at least one token"),
        (Request([1] * 36, Options(5)), "36 tokens .* max_new_tokens 5: .* max_length 40"),
        (Request([1], Options(5, logprobs=200)), "at most the vocabulary's 80"),
    ]
    for request, message in cases:
        with pytest.raises(UserError, match=message):
            generator.complete([REQUESTS[0], request])
    echo = Request([1], Options(prompt_logprobs=0))
    with pytest.raises(UserError, match="does not predict its prompt"):
        open_generator("t5").complete([echo])
    with pytest.raises(UserError, match="both directions"):
        open_generator(bidirectional_prompt=True).complete([echo])


@pytest.mark.parametrize("architecture", ["decoder", pytest.param("t5", marks=pytest.mark.slow)])
def test_a_mesh_shards_the_cache_and_changes_no_answer(architecture):
    model, params = random_model(architecture)
    mesh = make_mesh(MeshConfig(data=2, tensor=2), jax.devices()[:4])
    shardings = rules.tree_shardings(mesh, model.logical_axes, params)
    sharded = Generator(
        model, jax.device_put(params, shardings), stops=Stops((), (), spell), pad_id=0
    )
    searched = Request(PROMPTS[0], Options(N_NEW, n=2, beams=BeamSearch(2)))
    requests = [*REQUESTS[:2], searched]
    expected = open_generator(architecture).complete(requests)
    for got, want in zip(sharded.complete(requests), expected, strict=True):
        assert_same(got, want)

    batch = RequestBatch(REQUESTS[:2], Stops())
    layout = batch.layout(0, 24 if architecture == "decoder" else 1, False)
    with sharded.on_mesh():
        cache, *_ = begin_batch(sharded.model, layout, sharded.params, batch.prompts(2, 0))
    pairs = [*cache.layers, *(cache.cross.layers if cache.cross else [])]
    heads = pairs[0].keys_BxGxSxK.shape[1]  # Three heads of the T5 do not divide over two devices.
    for part in jax.tree.leaves(pairs):
        assert part.sharding.spec[0] == "data"
        assert part.sharding.shard_shape(part.shape)[:2] == (1, heads // 2 if heads % 2 == 0 else 3)


@each_architecture
def test_caches_are_in_the_models_dtype(architecture):
    _, params = random_model(architecture)
    model = build_model(dataclasses.replace(CONFIGS[architecture], dtype="bfloat16"))
    prompts = RequestBatch(REQUESTS[:1], Stops()).prompts(1, 0)
    cache, *_ = jax.eval_shape(
        lambda params: begin_batch(model.unrolled, Layout(48, 0), params, prompts),
        model.unstack(params),
    )
    pairs = [*cache.layers, *(cache.cross.layers if cache.cross else [])]
    assert len(pairs) == (2 if architecture == "decoder" else 4)
    assert {part.dtype for part in jax.tree.leaves(pairs)} == {jnp.dtype("bfloat16")}
