"""LongRoPE in the cache: an answer has the frequencies of one side, whatever else is decoded."""

import copy
import functools

import numpy as np
import pytest

from ift_jax.decoding import BeamSearch, Generator, GrowingText, Options, Request, Stops
from ift_jax.models import build_model

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

from tests.models import hugging_face as hf  # noqa: E402
from tests.models.architectures import jitted_logits, pack  # noqa: E402

FAMILY = "phi3_longrope"
FIRST_LENGTH = 23  # The `original_max_position_embeddings` of the family's reference.
# Prompts with their new tokens: the last new one is never read.
SHORT = [(3, 12), (9, 15), (20, 4)]  # The second and third read 23 tokens.
LONG = [(24, 12), (40, 5)]
CROSSING = [(10, 15), (21, 9)]  # The first may read 24 tokens.


@functools.cache
def case():
    reference, config = hf.reference_and_config(FAMILY)
    assert config.rope_original_length == FIRST_LENGTH
    return reference, build_model(config), hf.our_params(reference, config)


@functools.cache
def always_long():
    """The reference with the long factors for short texts, too."""
    reference, _, _ = case()
    config = copy.deepcopy(reference.config)
    config.rope_parameters["short_factor"] = config.rope_parameters["long_factor"]
    model = type(reference)._from_config(config, attn_implementation="eager").eval()
    model.load_state_dict(reference.state_dict())
    return model


@functools.cache
def generator():
    _, model, params = case()
    return Generator(model, params, stops=Stops((1,)), pad_id=0)


def requests(sizes, **options):
    rng = np.random.default_rng(3)
    return [
        Request(rng.integers(3, hf.VOCAB, n).tolist(), Options(n_new, **options))
        for n, n_new in sizes
    ]


def ids(outputs):
    return [output.completions[0].ids for output in outputs]


def by_transformers(reference, asked):
    return [
        hf.greedy(reference, [request.prompt], max_new_tokens=request.options.max_new_tokens)[0]
        for request in asked
    ]


def test_greedy_text_in_any_batch_is_that_of_transformers():
    """Where a request may cross the first length, it is that with the long factors throughout."""
    reference, _, _ = case()
    one_sided, crossing = requests(SHORT + LONG), requests(CROSSING)
    want = by_transformers(reference, one_sided) + by_transformers(always_long(), crossing)
    together = generator().complete([*one_sided, *crossing])
    assert ids(together) == want
    assert ids(generator().complete([*one_sided, *crossing], batch_size=1)) == want
    assert min(map(len, want)) >= 4
    # The factors show in the texts.
    assert by_transformers(reference, crossing) != want[-len(crossing) :]


def test_log_probabilities_are_those_of_the_whole_text_read_at_once():
    _, model, params = case()
    asked = requests(SHORT + LONG + CROSSING, logprobs=0, prompt_logprobs=0)
    asked += requests([(23, 0), (24, 0)], prompt_logprobs=0)
    for request, output in zip(asked, generator().complete(asked), strict=True):
        new = output.completions[0]
        found = [one.logprob for one in (*output.prompt_logprobs[1:], *(new.logprobs or []))]
        text = [*request.prompt, *new.ids]
        if new.finish_reason == "stop":  # Then less was read than may have been.
            text += [5] * (request.text_length - len(text) + 1)
        n_read = request.text_length
        batch = pack([[text[:n_read]]], 48)
        logits = np.asarray(jitted_logits(model)(params, batch), np.float64)[0]
        log_p = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        want = log_p[np.arange(len(found)), text[1 : len(found) + 1]]
        np.testing.assert_allclose(found, want, atol=2e-4)


def test_beams_have_the_frequencies_of_the_request():
    beams = BeamSearch(3)
    [request] = requests([(10, 15)], beams=beams)
    [output] = generator().complete([request])
    [(want, score), *_] = hf.beams(
        always_long(), request.prompt, [1], num_beams=3, max_new_tokens=15, length_penalty=1.0
    )
    assert output.completions[0].ids == want
    assert output.completions[0].score == pytest.approx(score, abs=1e-4)


def test_a_conversation_is_read_again_when_it_crosses_the_first_length():
    text = GrowingText(generator())
    rng = np.random.default_rng(5)
    history = rng.integers(3, hf.VOCAB, 6).tolist()
    read, lengths = [], []
    for n_new in (4, 4, 4, 4, 2):
        request = Request(history, Options(n_new))
        lengths.append(request.text_length)
        *_, output = text.stream(request)
        assert ids([output]) == ids(generator().complete([request]))
        read.append(text.n_read == len(history))
        history = [*history, *ids([output])[0], *rng.integers(3, hf.VOCAB, 2).tolist()]
    # The first turn, and the first one beyond the first length.
    first = next(i for i, length in enumerate(lengths) if length > FIRST_LENGTH)
    assert read == [i in (0, first) for i in range(len(lengths))]
    # A request that stays below it again is read as a whole, too.
    request = Request(history[:12], Options(3))
    *_, output = text.stream(request)
    assert text.n_read == 12
    assert ids([output]) == ids(generator().complete([request]))
