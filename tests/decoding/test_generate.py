"""Generation with the cache against the full forward pass at every step."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.decoding import Generator, Options, Sampling, Stops, generate
from ift_jax.decoding.cache import extend, prefill
from ift_jax.decoding.generate import bucket
from ift_jax.models import build_model
from tests.small_models import random_params

DECODER = DecoderConfig(
    vocab_size=80,
    d_model=24,
    n_layers=2,
    n_heads=4,
    n_kv_heads=2,
    head_dim=6,
    d_ff=40,
    sliding_window=4,
    global_every=2,
    attention_softcap=2.0,
    final_softcap=4.0,
)
T5 = EncoderDecoderConfig(
    vocab_size=80,
    d_model=24,
    n_encoder_layers=2,
    n_decoder_layers=2,
    n_heads=3,
    head_dim=6,
    d_ff=40,
    tied_embedding=True,
    relative_buckets=8,
    relative_max_distance=12,
)
CONFIGS = {"decoder": DECODER, "t5": T5}
SAMPLED = Sampling(1.5, 40, 0.95, repetition_penalty=1.2)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15], [16] * 20, [17, 18]]


@pytest.fixture(scope="module", params=CONFIGS)
def made(request):
    model = build_model(CONFIGS[request.param])
    return model, random_params(model)


# What does not depend on the architecture, and compiles many programs.
mostly_decoder = pytest.mark.parametrize(
    "made", ["decoder", pytest.param("t5", marks=pytest.mark.slow)], indirect=True
)


def run(made, prompts=PROMPTS, **options):
    model, params = made
    options = dict(max_new_tokens=12, stop_ids=(), pad_id=0) | options
    return generate(model, params, prompts, **options)


def as_row(tokens, width=40):
    place = np.arange(width, dtype=np.int32)[None]
    padded = np.zeros((1, width), np.int32)
    padded[0, : len(tokens)] = tokens
    parts = (padded, (place < len(tokens)).astype(np.int32), place)
    return dict(zip(("tokens", "segment_ids", "positions"), parts, strict=True))


@functools.cache
def logits_function(model):
    return jax.jit(lambda params, batch: model.logits(params, model.hidden(params, batch)))


def forward_greedy(made, prompt, n, prefix=False):
    """Token by token, each from one pass over everything before it: new tokens, logits."""
    model, params = made
    new, logits = [], []
    for _ in range(n):
        if isinstance(model.config, DecoderConfig):
            text = prompt + new
            batch = as_row(text)
            if prefix:
                batch["prefix_mask"] = batch["positions"] < len(prompt)
        else:
            text = [0, *new]
            batch = {f"encoder_{name}": value for name, value in as_row(prompt).items()}
            batch |= {f"decoder_{name}": value for name, value in as_row(text).items()}
        logits.append(np.asarray(logits_function(model)(params, batch))[0, len(text) - 1])
        new.append(int(logits[-1].argmax()))
    return new, np.stack(logits)


def test_cached_logits_equal_the_full_forward_pass(made):
    model, params = made
    apart, fast = model.unstack(params), model.unrolled
    prompts = np.zeros((2, 16), np.int32)
    prompts[0, :7], prompts[1, :1] = PROMPTS[0], PROMPTS[1]
    want = [forward_greedy(made, prompt, 10) for prompt in PROMPTS[:2]]
    lengths = np.asarray([7, 1], np.int32)
    begin = jax.jit(lambda prompts: prefill(fast, apart, prompts, lengths, n_new=9, start_id=0))
    states, cache = begin(prompts)
    step = jax.jit(lambda tokens, cache: extend(fast, apart, tokens, cache))
    for n in range(10):
        logits = np.asarray(fast.logits(apart, states))
        for row in range(2):
            np.testing.assert_allclose(logits[row], want[row][1][n], atol=2e-5)
        if n < 9:
            states, cache = step(np.asarray([tokens[n] for tokens, _ in want], np.int32), cache)


def test_greedy_tokens_equal_the_full_forward_pass_in_any_batch(made):
    together = run(made)
    for prompt, got in zip(PROMPTS, together, strict=True):
        assert got == forward_greedy(made, prompt, 12)[0]
    assert len({tuple(tokens) for tokens in together}) == len(PROMPTS)
    assert run(made, PROMPTS[::-1], batch_size=2) == together[::-1]


def test_a_row_ends_at_its_stop_token(made):
    free = run(made)
    stop_ids = (free[0][4], free[2][7])
    want = []
    for tokens in free:
        ends = [n for n, token in enumerate(tokens) if token in stop_ids]
        want.append(tokens[: ends[0] + 1] if ends else tokens)
    got = run(made, stop_ids=stop_ids)
    assert got == want
    assert min(map(len, got)) < 12
    few = 9 if made[0].config.architecture == "decoder" else 1  # In the same number of slots.
    assert run(made, max_new_tokens=few) == [tokens[:few] for tokens in free]


@mostly_decoder
def test_sampling_depends_on_seed_prompt_and_token_only(made):
    options = dict(sampling=SAMPLED, seed=3)
    together = run(made, **options)
    assert run(made, **options) == together
    assert run(made, **options, batch_size=2) == together
    assert run(made, PROMPTS[:2], **options) == together[:2]
    assert run(made, **options | dict(seed=4)) != together
    twice = run(made, [PROMPTS[0], PROMPTS[0]], **options)
    assert twice[0] != twice[1]
    assert len(set(twice[0])) > 3


def generator(made, *strings):
    return Generator(*made, stops=Stops((), strings, spell), pad_id=0)


def spell(ids):
    """One to three letters a token, so that strings lie across the borders of tokens."""
    return "".join("abcdefg"[i % 7] * (1 + i % 3) + "xyz"[i % 3] for i in ids)


@mostly_decoder
def test_blocks_and_first_index_change_nothing(made):
    options = Options(12, SAMPLED, seed=3)
    together = generator(made).generate(PROMPTS, options)
    watched = generator(made, "never there")
    assert all(watched.generate(PROMPTS, options, block=b) == together for b in (1, 5, 100))
    assert watched.generate(PROMPTS[3:], options, first_index=3) == together[3:]
    streamed = list(watched.stream(PROMPTS[3], options, index=3, block=5))
    assert [len(ids) for ids in streamed] == [1, 6, 11, 12]
    assert all(together[3][: len(ids)] == ids for ids in streamed)


@mostly_decoder
def test_a_stop_string_ends_its_row_after_the_token_that_completes_it(made):
    options = Options(12)
    free = generator(made).generate(PROMPTS, options)
    # From inside one token into another, of rows that end at different places.
    strings = [spell(free[0])[len(spell(free[0][:3])) - 1 :][:3], spell(free[2])[-4:]]
    want = []
    for ids in free:
        ends = [n for n in range(1, 13) if any(s in spell(ids[:n]) for s in strings)]
        want.append(ids[: ends[0]] if ends else ids)
    watched = generator(made, *strings)
    for block in (1, 4, 7, 16):
        assert watched.generate(PROMPTS, options, block=block) == want
    assert len(want[0]) in (3, 4) and len(set(map(len, want))) > 1
    texts = [watched.stops.text(ids) for ids in want]
    assert not any(s in text for s in strings for text in texts)
    assert all(spell(ids).startswith(text) for ids, text in zip(want, texts, strict=True))
    assert [watched.stops.stopped(ids) for ids in want] == [
        any(s in spell(ids) for s in strings) for ids in want
    ]
    *_, last = watched.stream(PROMPTS[0], options, block=3)
    assert last == want[0]


def test_a_bidirectional_prompt_is_that_of_the_prefix_mask(made):
    got = run(made, [PROMPTS[0]], bidirectional_prompt=True)[0]
    if made[0].config.architecture == "decoder":
        assert got == forward_greedy(made, PROMPTS[0], 12, prefix=True)[0]
        assert got != run(made, [PROMPTS[0]])[0]
    else:  # An encoder reads its input both ways anyway.
        assert got == run(made, [PROMPTS[0]])[0]


def test_empty_prompts(made):
    if made[0].config.architecture == "decoder":
        with pytest.raises(ValueError, match="prompt"):
            run(made, [[1], []])
    else:
        assert run(made, [[], [5]])[0] == forward_greedy(made, [], 12)[0]
    assert run(made, []) == []


def test_bfloat16_generates():
    model = build_model(dataclasses.replace(DECODER, n_layers=1, dtype="bfloat16"))
    params = jax.jit(model.init)(jax.random.key(0))
    got = generate(model, params, [[5, 6], [7]], max_new_tokens=6, stop_ids=(), pad_id=0)
    assert [len(tokens) for tokens in got] == [6, 6]


def test_buckets_are_few_and_not_wasteful():
    sizes = [bucket(n) for n in range(1, 5000)]
    assert all(n <= size <= max(16, n * 1.5) for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 20
