"""An absent field of a config.json, and one that is null, means what it does to `transformers`."""

import pytest

transformers = pytest.importorskip("transformers", reason="its configuration classes are compared")

from ift_jax.errors import UserError  # noqa: E402
from ift_jax.interop.hugging_face_config import family_of_fields, from_hugging_face  # noqa: E402
from ift_jax.interop.model_family import registered_families  # noqa: E402

DECODER_SIZES = dict(
    vocab_size=160,
    hidden_size=64 * 32,
    intermediate_size=80,
    num_hidden_layers=30,
    num_attention_heads=32,
    max_position_embeddings=256,
)
T5_SIZES = dict(vocab_size=160, d_model=48, d_kv=12, d_ff=80, num_layers=2, num_heads=4)
FAMILIES = {family.model_type: family for family in registered_families()}
each_family = pytest.mark.parametrize("model_type", sorted(FAMILIES))


# transformers changes these after it has read them, or makes `layer_types` of them.
_CHANGED = (
    "full_attention_interval",
    "sliding_window",
    "sliding_window_pattern",
    "tie_word_embeddings",
)


def their_class(model_type):
    return type(transformers.AutoConfig.for_model(model_type))


def sizes(model_type):
    if model_type == "t5gemma":
        return {"model_type": model_type, "encoder": DECODER_SIZES, "decoder": DECODER_SIZES}
    if model_type == "t5gemma2":
        encoder = {"text_config": DECODER_SIZES}
        return {"model_type": model_type, "encoder": encoder, "decoder": DECODER_SIZES}
    own = T5_SIZES if model_type in ("t5", "mt5", "umt5") else DECODER_SIZES
    if model_type == "helium":  # Its heads together are as wide as the model.
        own = own | {"hidden_size": 128 * 20, "num_attention_heads": 20}
    if model_type == "granitemoehybrid":  # An absent field means experts, or states.
        own = own | {"num_local_experts": 0, "layer_types": ["attention"] * 30}
    return {"model_type": model_type, **own}


def as_transformers_reads(fields):
    """Our config of what `transformers` makes of a config.json; None if it refuses it."""
    try:
        theirs = their_class(fields["model_type"]).from_dict(dict(fields))
        return from_hugging_face(theirs.to_dict(), "theirs")
    except Exception:  # Theirs are of many kinds.
        return None


@each_family
def test_the_table_of_a_family_holds_the_defaults_of_its_class(model_type):
    theirs, family = their_class(model_type)(), FAMILIES[model_type]
    if theirs.is_heterogeneous:  # What layers may have of their own is no field of it.
        theirs = theirs.per_layer_config[0]
    tables = [(theirs, family.defaults)]
    if model_type.startswith("t5gemma"):
        tables.append((theirs.decoder, family.stack_family.defaults))
    compared = 0
    for their_defaults, defaults in tables:
        for name, value in defaults.items():
            if value is None or name in ("rope_theta", "rope_local_base_freq"):
                continue  # Computed from others; compared by what is read below.
            if name in _CHANGED:
                continue
            assert getattr(their_defaults, name) == value, name
            compared += 1
    assert compared >= 2


@each_family
def test_a_file_with_nothing_but_sizes_is_read_as_transformers_reads_it(model_type):
    minimal = sizes(model_type)
    assert from_hugging_face(minimal, "ours") == as_transformers_reads(minimal)
    with_windows = minimal | {"use_sliding_window": True}
    if model_type == "qwen2_moe":
        assert from_hugging_face(with_windows, "ours") == as_transformers_reads(with_windows)
    elif "max_window_layers" in FAMILIES[model_type].defaults:
        ours = from_hugging_face(with_windows | {"max_window_layers": 0}, "ours")
        assert ours.sliding_window == 4096 and all(ours.local_layers())
        ours = from_hugging_face(with_windows, "ours")  # 28 layers are global, the last two local.
        assert ours == as_transformers_reads(with_windows)
        assert ours.local_layers() == [False] * 28 + [True] * 2


@each_family
def test_each_absent_field_is_read_as_transformers_reads_it(model_type):
    everything = their_class(model_type).from_dict(sizes(model_type)).to_dict()
    optional = set(everything) - set(sizes(model_type))
    assert len(optional) > 10
    for name in optional:
        fields = {key: value for key, value in everything.items() if key != name}
        assert from_hugging_face(fields, "ours") == as_transformers_reads(fields), name


@pytest.mark.parametrize("model_type", ["t5gemma", "t5gemma2"])
def test_each_absent_field_of_a_stack_is_read_as_transformers_reads_it(model_type):
    everything = their_class(model_type).from_dict(sizes(model_type)).to_dict()
    accepted = 0
    for name in everything["decoder"]:
        stack = {key: value for key, value in everything["decoder"].items() if key != name}
        fields = everything | {"decoder": stack}
        try:
            ours = from_hugging_face(fields, "ours")
        except UserError:  # The stacks then differ in what they must share.
            ours = None
        assert ours == as_transformers_reads(fields), name
        accepted += ours is not None
    assert accepted > 20
    unknown = everything | {"decoder": everything["decoder"] | {"altup_inputs": 2}}
    with pytest.raises(UserError, match=r"^ours: decoder: altup_inputs = 2 is not supported"):
        from_hugging_face(unknown, "ours")
    other = everything | {"decoder": everything["decoder"] | {"head_dim": 32}}
    with pytest.raises(UserError, match=r"^ours: encoder is .*head_dim .*; expected the decoder's"):
        from_hugging_face(other, "ours")


@each_family
def test_null_is_read_or_refused_as_by_transformers(model_type):
    everything = their_class(model_type).from_dict(sizes(model_type)).to_dict()
    accepted = 0
    for name in set(everything) - {
        "model_type",
        "layer_types",
        "per_layer_config",  # Read back, theirs would be another model.
        "sliding_window",
        "scale_decoder_outputs",
    }:
        fields = everything | {name: None}
        theirs = as_transformers_reads(fields)
        try:
            ours = from_hugging_face(fields, "config.json")
        except UserError as error:
            # T5 takes null for "tied", and its absence too; here it is no answer.
            assert theirs is None or name == "tie_word_embeddings", name
            assert str(error).startswith("config.json: ") and "expected" in str(error)
        else:
            # Null in a field that changes nothing is no reason to refuse a model.
            assert ours == theirs or name in FAMILIES[model_type].ignored, name
            accepted += 1
    assert accepted > 3


def gemma2(**fields):
    return from_hugging_face(sizes("gemma2") | fields, "config.json")


def test_gemma_2_with_nothing_written_has_its_caps_and_its_window():
    config = gemma2()
    assert (config.attention_softcap, config.final_softcap) == (50.0, 30.0)
    assert (config.sliding_window, config.global_every, config.n_kv_heads) == (4096, 2, 4)
    assert gemma2(final_logit_softcapping=None).final_softcap == 0.0


def test_a_window_that_is_written_twice_is_accepted_when_equal():
    assert gemma2(sliding_window=128, sliding_window_size=128).sliding_window == 128
    with pytest.raises(UserError, match="sliding_window_size is 64; expected 128"):
        gemma2(sliding_window=128, sliding_window_size=64)


def test_a_window_that_is_switched_off_may_begin_nowhere():
    fields = sizes("qwen2") | {"max_window_layers": None}
    assert from_hugging_face(fields, "config.json").sliding_window == 0
    with pytest.raises(UserError, match="max_window_layers is null; expected a whole number"):
        from_hugging_face(fields | {"use_sliding_window": True}, "config.json")


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("llama", "num_hidden_layers", 10**12),
        ("llama", "hidden_size", 10**24),
        ("llama", "num_attention_heads", True),
        ("llama", "num_attention_heads", 32.0),
        ("llama", "vocab_size", [160]),
        ("llama", "rope_scaling", {"rope_type": "linear", "factor": "2"}),
        ("llama", "attention_dropout", "none"),
        ("gemma3_text", "layer_types", [["full_attention"]]),
        ("t5", "relative_attention_num_buckets", 1),
        ("mt5", "d_model", None),
    ],
)
def test_a_wrong_type_or_size_is_one_line_with_file_field_value_and_expectation(
    model_type, field, value
):
    with pytest.raises(UserError) as caught:
        from_hugging_face(sizes(model_type) | {field: value}, "folder/config.json")
    message = str(caught.value)
    assert message.startswith("folder/config.json: ") and field in message and "\n" not in message
    assert "; expected " in message and len(message) < 300


def test_every_family_is_compared():
    for model_type, family in FAMILIES.items():
        assert family_of_fields(sizes(model_type), "here") is family
