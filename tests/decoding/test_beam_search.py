"""Beam search against `transformers`, and by T5X's rules against a search without arrays."""

import dataclasses

import numpy as np
import pytest

from ift_jax.decoding import BeamSearch, Generator, Options, Request, Sampling, Stops
from ift_jax.errors import UserError
from ift_jax.models import build_model
from tests.decoding.test_generate import (
    CONFIGS,
    PROMPTS,
    as_row,
    mostly_decoder,
    random_model,
)
from tests.models.architectures import jitted_logits

N_NEW = 10
STOP_IDS = tuple(range(4, 80, 12))  # So many that answers end after few tokens.
T5X = BeamSearch(4, 0.6, rules="t5x")


@pytest.fixture(autouse=True)
def few_programs(monkeypatch):
    monkeypatch.setattr("ift_jax.decoding.request_batch.bucket", lambda n: 24 if n <= 24 else 48)


@pytest.mark.parametrize("family", ["llama", "1.1"])
def test_answers_and_scores_are_those_of_transformers(family):
    pytest.importorskip("torch", reason="the reference models are torch modules")
    hf = pytest.importorskip("tests.models.hugging_face", reason="they live in transformers")
    reference, config = hf.reference_and_config(family)
    params = hf.our_params(reference, config)
    model = build_model(config)
    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, hf.VOCAB, n).tolist() for n in (9, 4, 12)]
    free = Generator(model, params, stops=Stops(), pad_id=0).generate(prompts, Options(N_NEW))
    stops = Stops(tuple({ids[n] for ids, n in zip(free, (2, 4, 7), strict=True)}))
    generator = Generator(model, params, stops=stops, pad_id=0)
    lengths = set()
    for beams in (
        BeamSearch(4),
        BeamSearch(3, 2.5, early_stopping=True),
    ):
        options = Options(N_NEW, n=3, beams=beams, logprobs=0)
        outputs = generator.complete([Request(prompt, options) for prompt in prompts])
        for prompt, output in zip(prompts, outputs, strict=True):
            want = hf.beams(
                reference,
                prompt,
                list(stops.ids),
                max_new_tokens=N_NEW,
                num_beams=beams.num_beams,
                length_penalty=beams.length_penalty,
                early_stopping=beams.early_stopping,
                num_return_sequences=3,
            )
            got = [(one.ids, one.score) for one in output.completions]
            assert [ids for ids, _ in got] == [ids for ids, _ in want]
            np.testing.assert_allclose([s for _, s in got], [s for _, s in want], rtol=1e-4)
            lengths |= {len(ids) for ids, _ in got}
            for one in output.completions:
                total = sum(token.logprob for token in one.logprobs)
                penalized = total / len(one.ids) ** beams.length_penalty
                assert one.score == pytest.approx(penalized, rel=1e-4)
                assert (one.finish_reason == "stop") == (one.ids[-1] in stops.ids)
    assert len(lengths) > 3


def next_log_probs(architecture, prompt, hypotheses):
    """Log-softmax after each hypothesis, from one pass over everything before it: float64."""
    model, params = random_model(architecture)
    if architecture != "t5":
        texts = [[*prompt, *tokens] for tokens in hypotheses]
        rows = [as_row(text) for text in texts]
    else:
        texts = [[0, *tokens] for tokens in hypotheses]
        encoder = {f"encoder_{name}": array for name, array in as_row(prompt).items()}
        rows = [
            encoder | {f"decoder_{name}": array for name, array in as_row(text).items()}
            for text in texts
        ]
    batch = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    logits = np.asarray(jitted_logits(model)(params, batch), np.float64)
    ends = logits[np.arange(len(texts)), [len(text) - 1 for text in texts]]
    return ends - np.log(np.exp(ends).sum(axis=-1, keepdims=True))


def t5x_search(architecture, prompt, beams, stop_id, n_new):
    """T5X's rules over lists: the finished answers with their scores, best first."""
    W = beams.num_beams

    def penalized(total, length):
        return total / ((5 + length) / 6) ** beams.length_penalty

    live = [((), 0.0)]
    finished = []
    for length in range(1, n_new + 1):
        padded = [tokens for tokens, _ in live] + [()] * (W - len(live))  # One shape.
        rows = next_log_probs(architecture, prompt, padded)
        candidates = [
            ((*tokens, token), total + row[token])
            for (tokens, total), row in zip(live, rows, strict=False)
            for token in range(len(row))
        ]
        likeliest = sorted(candidates, key=lambda one: -one[1])[: 2 * W]
        ended = [(ids, penalized(total, length)) for ids, total in likeliest if ids[-1] == stop_id]
        finished = sorted([*finished, *ended], key=lambda one: -one[1])[:W]
        live = [one for one in likeliest if one[0][-1] != stop_id][:W]
        if len(finished) == W and finished[-1][1] > penalized(live[0][1], n_new + 1):
            break
    return finished or [(tokens, penalized(total, len(tokens))) for tokens, total in live]


@pytest.mark.parametrize("architecture", [*CONFIGS, "hybrid"])
def test_t5x_rules_are_those_of_a_search_over_lists(architecture):
    prompts = PROMPTS[:3] if architecture != "t5" else PROMPTS[:2]
    rows = next_log_probs(architecture, prompts[0], [()] * 4)
    # The likeliest first token ends many answers, the least likely none.
    n_finished = set()
    for stop_id in (int(rows[0].argmax()), int(rows[0].argmin())):
        generator = Generator(*random_model(architecture), stops=Stops((stop_id,)), pad_id=0)
        options = Options(N_NEW, n=4, beams=T5X)
        for prompt, output in zip(
            prompts, generator.complete([Request(ids, options) for ids in prompts]), strict=True
        ):
            want = t5x_search(architecture, prompt, T5X, stop_id, N_NEW)
            n_finished.add(len(want) if want[0][0][-1] == stop_id else 0)
            got = output.completions[: len(want)]
            assert [tuple(one.ids) for one in got] == [ids for ids, _ in want]
            np.testing.assert_allclose([one.score for one in got], [s for _, s in want], rtol=1e-4)
            unfinished = output.completions[len(want) :]
            assert all(len(one.ids) == N_NEW and one.ids[-1] != stop_id for one in unfinished)
    assert n_finished - {0} and (0 in n_finished or architecture == "hybrid")


@mostly_decoder
def test_beams_do_not_depend_on_the_batch(architecture):
    generator = Generator(*random_model(architecture), stops=Stops(STOP_IDS), pad_id=0)
    requests = [
        Request(PROMPTS[0], Options(N_NEW, n=2, beams=T5X)),
        Request(PROMPTS[1], Options(3, n=4, beams=T5X, stop_ids=(7, 8))),
        Request(PROMPTS[2], Options(N_NEW)),
        Request(PROMPTS[4], Options(6, beams=T5X)),
    ]
    together = generator.complete(requests)
    assert [len(output.completions) for output in together] == [2, 4, 1, 1]
    alone_and_in_blocks = generator.complete_batches(
        requests, batch_size=1, block=4, stopped=lambda: False
    )
    apart = {i: output for batch in alone_and_in_blocks for i, output in batch.items()}
    for i, (request, output) in enumerate(zip(requests, together, strict=True)):
        alone = apart[i]
        assert [one.ids for one in output.completions] == [one.ids for one in alone.completions]
        assert max(len(one.ids) for one in output.completions) <= request.options.max_new_tokens


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BeamSearch(1), "num_beams: expected 2 or more; got 1"),
        (lambda: BeamSearch(2, float("nan")), "length_penalty"),
        (lambda: BeamSearch(2, rules="seqio"), "beam_rules: expected 'transformers' or 't5x'"),
        (lambda: dataclasses.replace(T5X, early_stopping=True), "early_stopping"),
        (lambda: Options(beams=T5X, sampling=Sampling(1.0)), "neither samples"),
        (lambda: Options(beams=T5X, n=5), "4 beams give as many answers"),
        (lambda: Options(beams=T5X, logprobs=2), "keeps no likeliest tokens"),
    ],
)
def test_wrong_searches_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
