"""Every family against `transformers`: logits, losses and gradients, float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ift_jax.interop.hugging_face_config import to_hugging_face
from ift_jax.interop.tensor_table import leaf_at, leaves, tensor_table
from ift_jax.models import build_model
from ift_jax.models.attention.kv import LayerCache
from ift_jax.models.attention.mask import Tokens
from ift_jax.models.attention.relative_bias import relative_buckets

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch  # noqa: E402

from tests.models import hugging_face as hf  # noqa: E402
from tests.models.architectures import jit, jitted_logits, pack  # noqa: E402

TOLERANCE = 2e-4


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
    reference, config = hf.reference_and_config(family)
    model = build_model(config)
    params = hf.our_params(reference, config)
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
    reference, config = hf.reference_and_config(family)
    model = build_model(config)
    params = model.unstack(hf.our_params(reference, config))
    tokens = np.random.default_rng(0).integers(3, hf.VOCAB, (1, 25)).astype(np.int32)
    N_PROMPT = 19

    @jit
    def logits(params):
        module = model.unrolled.module(params)
        positions = jnp.arange(tokens.shape[1])[None]
        ones = jnp.ones_like(positions)
        prompt = Tokens(ones[:, :N_PROMPT], positions[:, :N_PROMPT])
        x, kv = module.hidden_with_cache(tokens[:, :N_PROMPT], prompt, prompt)
        room = ((0, 0), (0, 0), (0, tokens.shape[1] - N_PROMPT), (0, 0))
        kv = jax.tree.map(lambda part: jnp.pad(part, room), kv)
        caches = [LayerCache(of_layer, jnp.int32(N_PROMPT)) for of_layer in kv]
        new = Tokens(ones[:, N_PROMPT:], positions[:, N_PROMPT:])
        y, _ = module.hidden_with_cache(tokens[:, N_PROMPT:], new, Tokens(ones, positions), caches)
        return model.unrolled.logits(params, jnp.concatenate([x, y], axis=1))

    with torch.no_grad():
        theirs = reference(torch.tensor(tokens)).logits.numpy()
    np.testing.assert_allclose(logits(params), theirs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", hf.RELATIVES)
def test_tensors_and_config_come_back_the_same(family):
    reference, config = hf.reference_and_config(family)
    params = hf.our_params(reference, config)
    model_type = reference.config.model_type
    target = to_hugging_face(config, model_type=model_type)
    assert target.family.model_type == model_type
    parts = {}
    for entry in sorted(
        tensor_table(build_model(config), target.family), key=lambda entry: entry.first_row
    ):
        leaf = leaf_at(params, entry.path)
        for i, name in enumerate(entry.names):
            values = np.asarray(leaf[i] if entry.stacked else leaf)
            parts.setdefault(name, []).append(values.T if entry.transposed else values)
    ours = {name: np.concatenate(values) for name, values in parts.items()}
    theirs = reference.state_dict()
    if config.tied_embedding:
        theirs = {name: values for name, values in theirs.items() if name != "lm_head.weight"}
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values.numpy(), err_msg=name)

    their_config = type(reference.config).from_dict({**target.fields, "pad_token_id": 0})
    back = type(reference)._from_config(their_config, attn_implementation="eager").eval()
    back.load_state_dict(reference.state_dict())
    tokens = torch.tensor(random_tokens(2, 21))
    with torch.no_grad():
        np.testing.assert_array_equal(back(tokens).logits, reference(tokens).logits)


@pytest.mark.parametrize("version", hf.T5S)
@pytest.mark.parametrize(("n_source", "n_target"), [(17, 9), (5, 33), (40, 1)])
def test_t5_logits_and_loss(version, n_source, n_target):
    reference, config = hf.reference_and_config(version)
    model = build_model(config)
    params = hf.our_params(reference, config)
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


@pytest.mark.parametrize("family", ["gemma3", "qwen2", "cohere2", "olmo3", "1.0", "1.1"])
def test_gradients_of_the_loss(family):
    reference, config = hf.reference_and_config(family)
    model = build_model(config)
    params = hf.our_params(reference, config)
    if family in hf.T5S:
        sources = random_tokens(2, 11)
        targets = random_tokens(2, 7, seed=1)
        batch = t5_batch(sources, targets, [11, 6])
        inputs = dict(
            input_ids=torch.tensor(sources),
            attention_mask=torch.tensor(batch["encoder_segment_ids"]),
            decoder_input_ids=torch.tensor(batch["decoder_tokens"]),
        )
    else:
        batch = decoder_batch([19, 19], 19)
        targets = np.roll(batch["tokens"], -1, axis=1)
        inputs = dict(input_ids=torch.tensor(batch["tokens"]))

    def loss(params):
        log_p = jax.nn.log_softmax(model.logits(params, model.hidden(params, batch)))
        return -jnp.take_along_axis(log_p, targets[..., None], axis=-1).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    reference.zero_grad()
    their_loss = torch.nn.functional.cross_entropy(
        reference(**inputs).logits.reshape(-1, hf.VOCAB),
        torch.tensor(targets, dtype=torch.long).reshape(-1),
    )
    their_loss.backward()
    np.testing.assert_allclose(value, their_loss.item(), rtol=1e-5)
    theirs = {name: weight.grad for name, weight in reference.named_parameters()}
    ours = dict(leaves(jax.device_get(gradients)))
    for entry in tensor_table(model, to_hugging_face(config).family):
        for i, name in enumerate(entry.names):
            got = ours[entry.path][i] if entry.stacked else ours[entry.path]
            want = theirs[name].numpy().T if entry.transposed else theirs[name].numpy()
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
