"""Every family against `transformers`: logits, losses and gradients, float32."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.tensor_table import fuse, leaf_at, leaves, tensor_table
from ift_jax.models import build_model
from ift_jax.models.attention.kv import LayerCache, add_slots
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.attention.relative_bias import relative_buckets

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch  # noqa: E402

from tests.models import hugging_face as hf  # noqa: E402
from tests.models.architectures import jit, jitted_logits, pack  # noqa: E402

TOLERANCE = 2e-4


@functools.cache
def case(family):
    """The reference model of a family, our config and model of it, and our parameters."""
    reference, config = hf.reference_and_config(family)
    return reference, config, build_model(config), hf.our_params(reference, config)


def random_tokens(rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, hf.VOCAB, (rows, length)).astype(np.int32)


def segments(lengths: list[int], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Segment ids and positions of one example a row."""
    positions = np.broadcast_to(np.arange(width, dtype=np.int32), (len(lengths), width))
    return (positions < np.asarray(lengths)[:, None]).astype(np.int32), positions


def decoder_batch(lengths: list[int], width: int) -> dict[str, np.ndarray]:
    segment_ids, positions = segments(lengths, width)
    tokens = random_tokens(len(lengths), width)
    return dict(tokens=tokens, segment_ids=segment_ids, positions=positions)


def t5_batch(
    sources: np.ndarray, targets: np.ndarray, source_lengths: list[int]
) -> dict[str, np.ndarray]:
    encoder_segment_ids, encoder_positions = segments(source_lengths, sources.shape[1])
    target_lengths = [targets.shape[1]] * len(targets)
    decoder_segment_ids, decoder_positions = segments(target_lengths, targets.shape[1])
    return dict(
        encoder_tokens=sources,
        encoder_segment_ids=encoder_segment_ids,
        encoder_positions=encoder_positions,
        decoder_tokens=np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
        decoder_segment_ids=decoder_segment_ids,
        decoder_positions=decoder_positions,
    )


# Each family in its usual shape, and rope's scalings; the odder shapes are marked slow.
USUAL = ("llama", "llama3", "mistral", "qwen2", "qwen3", "olmo2", "gemma2", "gemma3")


@pytest.mark.parametrize(
    "family",
    [
        name
        if name in USUAL or name in hf.RELATIVES
        else pytest.param(name, marks=pytest.mark.slow)
        for name in (*hf.DECODERS, *hf.RELATIVES)
    ],
)
def test_decoder_logits_of_packed_rows(family):
    """Two examples in one row and one in the next: each as `transformers` sees it alone."""
    reference, _, model, params = case(family)
    rng = np.random.default_rng(0)
    examples = [rng.integers(3, hf.VOCAB, n).tolist() for n in (37, 8, 23)]  # A long one: windows.
    batch = pack([examples[:2], examples[2:]], 45)
    ours = np.asarray(jitted_logits(model)(params, batch))
    places = [ours[0, :37], ours[0, 37:], ours[1, :23]]
    for example, got in zip(examples, places, strict=True):
        with torch.no_grad():
            theirs = reference(torch.tensor([example])).logits[0].numpy()
        assert np.abs(theirs).max() > 1  # Logits worth comparing.
        np.testing.assert_allclose(got, theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", [name for name in hf.RELATIVES if "_odd" not in name])
def test_cached_decoding_equals_the_full_forward_pass(family):
    reference, _, model, params = case(family)
    params = model.unstack(params)
    tokens = np.random.default_rng(0).integers(3, hf.VOCAB, (1, 25)).astype(np.int32)
    N_PROMPT = 19

    @jit
    def logits(params):
        module = model.unrolled.module(params)
        positions = jnp.arange(tokens.shape[1])[None]
        ones = jnp.ones_like(positions)
        prompt = Tokens(ones[:, :N_PROMPT], positions[:, :N_PROMPT])
        n = np.array([tokens.shape[1]])
        x, kv = module.hidden_with_cache(tokens[:, :N_PROMPT], prompt, prompt, text_lengths_B=n)
        room = tokens.shape[1] - N_PROMPT
        caches = [LayerCache(add_slots(kept, room), jnp.int32(N_PROMPT)) for kept in kv]
        new = Tokens(ones[:, N_PROMPT:], positions[:, N_PROMPT:])
        slots = Tokens(ones, positions)
        y, _ = module.hidden_with_cache(tokens[:, N_PROMPT:], new, slots, caches, n)
        return model.unrolled.logits(params, jnp.concatenate([x, y], axis=1))

    with torch.no_grad():
        theirs = reference(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(params), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", hf.RELATIVES)
def test_tensors_and_config_come_back_the_same(family):
    reference, config, model, params = case(family)
    model_type = reference.config.model_type
    target = to_hugging_face(config, model_type=model_type)
    assert target.family.model_type == model_type
    parts = {}
    for entry in sorted(tensor_table(model, target.family), key=lambda entry: entry.first_row):
        leaf = leaf_at(params, entry.path)
        for i, name in enumerate(entry.names):
            values = entry.as_theirs(np.asarray(leaf[entry.place(i)]))
            parts.setdefault(name, []).append((entry, values))
    ours = {name: fuse(values) for name, values in parts.items()}
    theirs = hf.released(reference, reference.state_dict())
    if config.tied_embedding:
        copies = target.family.tensor_names(config).copies
        theirs = {name: values for name, values in theirs.items() if name not in copies}
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values.numpy(), err_msg=name)

    their_config = type(reference.config).from_dict({**target.fields, "pad_token_id": 0})
    back = type(reference)._from_config(their_config, attn_implementation="eager").eval()
    back.load_state_dict(reference.state_dict())
    tokens = torch.tensor(random_tokens(2, 21))
    with torch.no_grad():
        np.testing.assert_array_equal(back(tokens).logits, reference(tokens).logits)


@pytest.mark.parametrize(
    ("version", "n_source", "n_target"),
    [("1.0", 5, 33), ("1.0", 40, 1), *((name, 40, 33) for name in hf.T5S)],
)
def test_t5_logits_and_loss(version, n_source, n_target):
    reference, _, model, params = case(version)
    sources = random_tokens(3, n_source)
    targets = random_tokens(3, n_target, seed=1)
    batch = t5_batch(sources, targets, [n_source, n_source - 2, 1])
    ours = np.asarray(jitted_logits(model)(params, batch))
    with torch.no_grad():
        theirs = reference(
            input_ids=torch.tensor(sources),
            attention_mask=torch.tensor(batch["encoder_segment_ids"]),
            labels=torch.tensor(targets, dtype=torch.long),
        )
    np.testing.assert_allclose(ours, theirs.logits.numpy(), atol=TOLERANCE, rtol=0)
    log_z = np.log(np.exp(ours.astype(np.float64)).sum(axis=-1))
    loss = (log_z - np.take_along_axis(ours, targets[..., None], axis=-1)[..., 0]).mean()
    np.testing.assert_allclose(loss, theirs.loss.item(), rtol=1e-5)


@pytest.mark.parametrize(
    "family",
    [
        *("gemma3", "qwen2", "cohere2", "olmo3", "qwen3_next", "gpt_oss", "qwen3_5", "gemma4"),
        *("cohere_plus", "gpt_neox"),
        *("1.0", "umt5", "t5gemma", "t5gemma2"),
    ],
)
def test_gradients_of_the_loss(family):
    reference, config, model, params = case(family)
    if family in hf.T5S:
        sources = random_tokens(2, 11)
        targets = random_tokens(2, 7, seed=1)
        sources[0, 3] = config.image_end_id or sources[0, 3]  # It has an embedding of its own.
        batch = t5_batch(sources, targets, [11, 6])
        inputs = dict(
            input_ids=torch.tensor(sources),
            attention_mask=torch.tensor(batch["encoder_segment_ids"]),
            decoder_input_ids=torch.tensor(batch["decoder_tokens"]),
        )
        inputs["decoder_input_ids"][:, 0] = config.decoder_start_id
    else:
        batch = decoder_batch([19, 19], 19)
        targets = np.roll(batch["tokens"], -1, axis=1)
        inputs = dict(input_ids=torch.tensor(batch["tokens"]))

    def loss(params):
        log_p = jax.nn.log_softmax(model.logits(params, model.hidden(params, batch)))
        return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean()

    value, gradients = jit(jax.value_and_grad(loss))(params)
    reference.zero_grad()
    their_loss = torch.nn.functional.cross_entropy(
        reference(**inputs).logits.reshape(-1, hf.VOCAB),
        torch.tensor(targets, dtype=torch.long).reshape(-1),
    )
    their_loss.backward()
    np.testing.assert_allclose(value, their_loss.item(), rtol=1e-5)
    grads = {name: weight.grad for name, weight in reference.named_parameters()}
    theirs = hf.released(reference, grads)
    ours = dict(leaves(jax.device_get(gradients)))
    for entry in tensor_table(model, to_hugging_face(config).family):
        for i, name in enumerate(entry.names):
            got = entry.as_theirs(np.asarray(ours[entry.path][entry.place(i)]))
            if name.endswith("layer_scalar"):  # It is not trained.
                assert name not in theirs and not got.any()
                continue
            want = theirs[name].numpy()
            if entry.fused_rows:
                rows = np.arange(want.shape[entry.fused_axis])[entry.their_rows(slice(None))]
                want = want.take(rows, axis=entry.fused_axis)
            error = np.linalg.norm(got - want) / np.linalg.norm(want)
            assert error < 1e-3, (name, error)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 24), (8, 20)])
def test_relative_buckets(bidirectional, buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-1100, 1100)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distance), bidirectional, buckets, max_distance
    ).numpy()
    ours = relative_buckets(
        distance, bidirectional=bidirectional, buckets=buckets, max_distance=max_distance
    )
    np.testing.assert_array_equal(ours, theirs)
