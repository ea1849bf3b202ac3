"""Generation with the cache against the full forward pass at every step."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from ift_jax.config.schema import DecoderConfig, EncoderDecoderConfig
from ift_jax.decoding import Generator, Options, Request, Sampling, Stops, generate
from ift_jax.decoding.cache import extend, prefill
from ift_jax.decoding.request_batch import bucket
from ift_jax.errors import UserError
from ift_jax.models import build_model
from tests.models.architectures import jitted_logits
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
HYBRID = dataclasses.replace(
    DECODER,
    n_layers=3,
    sliding_window=0,
    global_every=0,
    linear_layers="LFL",
    linear_key_heads=2,
    linear_value_heads=4,
    linear_key_dim=6,
    linear_value_dim=5,
)
CONFIGS = {"decoder": DECODER, "t5": T5}
SAMPLED = Sampling(temperature=1.5, top_k=40, top_p=0.95, repetition_penalty=1.2)
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12], [13, 14, 15], [16] * 20, [17, 18]]
N_NEW = 12


@functools.cache
def random_model(architecture):
    """A model and its parameters."""
    model = build_model({**CONFIGS, "hybrid": HYBRID}[architecture])
    return model, random_params(model)


each_architecture = pytest.mark.parametrize("architecture", CONFIGS)
# For what does not depend on the architecture, and compiles many programs.
mostly_decoder = pytest.mark.parametrize(
    "architecture", ["decoder", pytest.param("t5", marks=pytest.mark.slow)]
)


def run(architecture, prompts=PROMPTS, **options):
    """Generate without stop tokens, greedily, unless the options say otherwise."""
    model, params = random_model(architecture)
    options = dict(max_new_tokens=N_NEW, stop_ids=(), pad_id=0) | options
    return generate(model, params, prompts, **options)


def as_row(tokens, width=40):
    """The arrays of one row that holds one example."""
    positions = np.arange(width, dtype=np.int32)[None]
    padded = np.zeros((1, width), np.int32)
    padded[0, : len(tokens)] = tokens
    segment_ids = (positions < len(tokens)).astype(np.int32)
    return {"tokens": padded, "segment_ids": segment_ids, "positions": positions}


def forward_greedy(architecture, prompt, n, prefix=False):
    """New tokens and their logits, each from one pass over everything before it, no cache."""
    model, params = random_model(architecture)
    new, logits = [], []
    for _ in range(n):
        if architecture == "decoder":
            text = prompt + new
            batch = as_row(text)
            if prefix:
                batch["prefix_mask"] = batch["positions"] < len(prompt)
        else:
            text = [0, *new]
            batch = {f"encoder_{name}": array for name, array in as_row(prompt).items()}
            batch |= {f"decoder_{name}": array for name, array in as_row(text).items()}
        logits.append(np.asarray(jitted_logits(model)(params, batch))[0, len(text) - 1])
        new.append(int(logits[-1].argmax()))
    return new, np.stack(logits)


@each_architecture
def test_cached_logits_equal_the_full_forward_pass(architecture):
    model, params = random_model(architecture)
    unrolled = model.unrolled
    unstacked = model.unstack(params)
    n_tokens = 10
    prompts = np.zeros((2, 16), np.int32)
    prompts[0, :7] = PROMPTS[0]
    prompts[1, :1] = PROMPTS[1]
    lengths = np.asarray([7, 1], np.int32)
    wanted = [forward_greedy(architecture, prompt, n_tokens) for prompt in PROMPTS[:2]]

    @jax.jit
    def begin(params, prompts):
        states, cache, _ = prefill(unrolled, params, prompts, lengths, n_new=n_tokens - 1)
        return unrolled.logits(params, states), cache

    @jax.jit
    def step(params, tokens, cache):
        states, cache = extend(unrolled, params, tokens, cache)
        return unrolled.logits(params, states), cache

    logits, cache = begin(unstacked, prompts)
    for n in range(n_tokens):
        for row, (_, wanted_logits) in enumerate(wanted):
            np.testing.assert_allclose(logits[row], wanted_logits[n], atol=2e-5)
        if n < n_tokens - 1:
            tokens = np.asarray([tokens[n] for tokens, _ in wanted], np.int32)
            logits, cache = step(unstacked, tokens, cache)


@each_architecture
def test_greedy_tokens_equal_the_full_forward_pass_in_any_batch(architecture):
    together = run(architecture)
    for prompt, got in zip(PROMPTS, together, strict=True):
        assert got == forward_greedy(architecture, prompt, N_NEW)[0]
    assert len({tuple(tokens) for tokens in together}) == len(PROMPTS)
    assert run(architecture, PROMPTS[::-1], batch_size=2) == together[::-1]


@each_architecture
def test_a_row_ends_at_its_stop_token(architecture):
    free = run(architecture)
    stop_ids = (free[0][4], free[2][7])
    want = []
    for tokens in free:
        ends = [n for n, token in enumerate(tokens) if token in stop_ids]
        want.append(tokens[: ends[0] + 1] if ends else tokens)
    got = run(architecture, stop_ids=stop_ids)
    assert got == want
    assert min(map(len, got)) < N_NEW
    few = 9 if architecture == "decoder" else 1  # As many slots, so no other program is compiled.
    assert run(architecture, max_new_tokens=few) == [tokens[:few] for tokens in free]


@mostly_decoder
def test_sampling_depends_on_seed_prompt_and_token_only(architecture):
    options = dict(sampling=SAMPLED, seed=3)
    together = run(architecture, **options)
    assert run(architecture, **options) == together
    assert run(architecture, **options, batch_size=2) == together
    assert run(architecture, PROMPTS[:2], **options) == together[:2]
    assert run(architecture, **options | dict(seed=4)) != together
    twice = run(architecture, [PROMPTS[0], PROMPTS[0]], **options)
    assert twice[0] != twice[1]
    assert len(set(twice[0])) > 3


def generator(architecture, *stop_strings):
    return Generator(*random_model(architecture), stops=Stops((), stop_strings, spell), pad_id=0)


def ids_so_far(generator, request, block):
    for [output] in generator.stream([request], block=block):
        yield output.completions[0].ids


def spell(ids):
    """One to three letters a token, and then one that differs: strings span several tokens."""
    return "".join("abcdefg"[i % 7] * (1 + i % 3) + "xyz"[i % 3] for i in ids)


@mostly_decoder
def test_blocks_and_first_index_change_nothing(architecture):
    options = Options(N_NEW, SAMPLED, seed=3)
    together = generator(architecture).generate(PROMPTS, options)
    watched = generator(architecture, "never there")
    for block in (1, 5, 100):
        assert watched.generate(PROMPTS, options, block=block) == together
    assert watched.generate(PROMPTS[3:], options, first_index=3) == together[3:]
    streamed = list(ids_so_far(watched, Request(PROMPTS[3], options, 3), block=5))
    assert [len(ids) for ids in streamed] == [1, 6, 11, 12]
    assert all(together[3][: len(ids)] == ids for ids in streamed)


def test_a_stop_gives_up_a_batch_after_the_block_at_hand_and_changes_nothing_else():
    options = Options(N_NEW, SAMPLED, seed=3)
    model = generator("decoder")
    asked = []

    def batches(stop_at):
        """The batches that are done if the stop comes before the given look for it."""
        asked.clear()
        looks = model.generate_batches(
            PROMPTS, options, batch_size=2, stopped=lambda: asked.append(1) or len(asked) == stop_at
        )
        return list(looks)

    whole = batches(stop_at=0)
    assert dict(sorted({i: ids for batch in whole for i, ids in batch.items()}.items())) == dict(
        enumerate(model.generate(PROMPTS, options))
    )
    # 4 tokens, then 8 more, which is all: a batch that is done is kept.
    assert len(asked) == len(whole) == 3
    assert batches(stop_at=1) == [] and batches(stop_at=2) == whole[:1]


@mostly_decoder
def test_a_stop_string_ends_its_row_after_the_token_that_completes_it(architecture):
    options = Options(N_NEW)
    free = generator(architecture).generate(PROMPTS, options)
    # They begin inside one token and end inside another, in rows that end at different places.
    first = spell(free[0])[len(spell(free[0][:3])) - 1 :][:3]
    second = spell(free[2])[-4:]
    strings = [first, second]
    want = []
    for ids in free:
        ends = [n for n in range(1, N_NEW + 1) if any(s in spell(ids[:n]) for s in strings)]
        want.append(ids[: ends[0]] if ends else ids)
    watched = generator(architecture, *strings)
    for block in (1, 4, 7, 16):
        assert watched.generate(PROMPTS, options, block=block) == want
    assert len(want[0]) in (3, 4) and len(set(map(len, want))) > 1
    texts = [watched.stops.text(ids) for ids in want]
    assert not any(s in text for s in strings for text in texts)
    assert all(spell(ids).startswith(text) for ids, text in zip(want, texts, strict=True))
    holds_a_string = [any(s in spell(ids) for s in strings) for ids in want]
    assert [watched.stops.stopped(ids) for ids in want] == holds_a_string
    *_, last = ids_so_far(watched, Request(PROMPTS[0], options), block=3)
    assert last == want[0]


@each_architecture
def test_a_bidirectional_prompt_is_that_of_the_prefix_mask(architecture):
    got = run(architecture, [PROMPTS[0]], bidirectional_prompt=True)[0]
    if architecture == "decoder":
        assert got == forward_greedy(architecture, PROMPTS[0], N_NEW, prefix=True)[0]
        assert got != run(architecture, [PROMPTS[0]])[0]
    else:  # An encoder reads its input both ways anyway.
        assert got == run(architecture, [PROMPTS[0]])[0]


def test_a_decoder_needs_a_prompt():
    with pytest.raises(UserError, match="prompt"):
        run("decoder", [[1], []])
    assert run("decoder", []) == []


def test_an_encoder_may_read_nothing():
    assert run("t5", [[], [5]])[0] == forward_greedy("t5", [], N_NEW)[0]
    assert run("t5", []) == []


def test_bfloat16_generates():
    model = build_model(dataclasses.replace(DECODER, n_layers=1, dtype="bfloat16"))
    params = random_params(model)
    got = generate(model, params, [[5, 6], [7]], max_new_tokens=6, stop_ids=(), pad_id=0)
    assert [len(tokens) for tokens in got] == [6, 6]


def test_buckets_are_few_and_not_wasteful():
    sizes = [bucket(n) for n in range(1, 5000)]
    assert all(n <= size <= max(16, n * 1.5) for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 20
