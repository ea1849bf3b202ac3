"""GGUF without the `gguf` package: unknown fields, scaled RoPE, and files that are broken."""

import dataclasses
import importlib.util
import json
import struct

import numpy as np
import pytest

from ift_jax.config.schema import DecoderConfig
from ift_jax.errors import UserError
from ift_jax.interop.gguf import open_gguf
from ift_jax.interop.gguf_file import read_gguf
from ift_jax.interop.hugging_face_config import from_hugging_face
from ift_jax.models.rope import frequencies
from ift_jax.text.tokenizers.chat_template_files import one_template
from ift_jax.text.tokenizers.load import tokenizer_from_files
from tests.interop import gguf_files as files
from tests.interop.gguf_files import SIZES, TOKENIZER, TOKENS, gguf_bytes, weights


@pytest.fixture
def write(tmp_path):
    def write(tensors=None, **changes):
        changed = {name.replace("__", "."): value for name, value in changes.items()}
        fields = {
            name: value
            for name, value in (SIZES | TOKENIZER | changed).items()
            if value is not None
        }
        path = tmp_path / "m.gguf"
        path.write_bytes(gguf_bytes(fields, weights() if tensors is None else tensors))
        return str(path)

    return write


def test_a_whole_file_is_read(write):
    model = open_gguf(write(tokenizer__ggml__eot_token_id=1, general__sampling__temp=0.7))
    config = from_hugging_face(model.fields, "m.gguf")
    assert (config.norm_eps, config.rope_theta, config.head_dim) == (1e-5, 500_000.0, 8)
    assert config.tied_embedding and config.vocab_size == len(TOKENS)
    assert model.stop_ids == (0, 1)
    assert model.generation == {"temperature": 0.7, "do_sample": True}
    want = weights()
    for theirs, ours in {
        "token_embd": "model.embed_tokens",
        "blk.0.ffn_down": "model.layers.0.mlp.down_proj",
    }.items():
        part = (slice(3, 9), slice(2, None))
        got = model.tensors[f"{ours}.weight"].read(part)
        np.testing.assert_array_equal(got, want[f"{theirs}.weight"][part])
    # Two heads of eight rows, whose halves are interleaved in the file.
    query = want["blk.0.attn_q.weight"].reshape(2, 4, 2, 16).swapaxes(1, 2).reshape(16, 16)
    got = model.tensors["model.layers.0.self_attn.q_proj.weight"].read((slice(None),) * 2)
    np.testing.assert_array_equal(got, query)
    tokenizer = tokenizer_from_files(model.tokenizer_files, "m.gguf")
    ab, abc = TOKENS.index("ab"), TOKENS.index("abc")
    assert tokenizer.encode("abcab") == [abc, ab] and tokenizer.eos_id == 0
    assert tokenizer.encode_with_controls("ab<|user|>") == [ab, 1]


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="its own reader is compared")
def test_the_gguf_package_reads_the_same(write):
    import gguf

    path = write(llama__rope__scale_linear=2.0)
    reader = gguf.GGUFReader(path)
    ours = read_gguf(path, lambda name, type_id, shape: 4 * int(np.prod(shape)))
    theirs = {n: f.contents() for n, f in reader.fields.items() if not n.startswith("GGUF.")}
    assert ours.fields == theirs
    places = {t.name: (tuple(t.shape.tolist()[::-1]), t.data_offset) for t in reader.tensors}
    assert {n: (t.shape, t.offset) for n, t in ours.tensors.items()} == places


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"scale_linear": 4.0}, 4.0),
        ({"scaling.type": "linear", "scaling.factor": 8.0}, 8.0),
        ({"scaling.factor": 2.0, "scale_linear": 4.0}, 2.0),  # The new name goes before the old.
        ({"scaling.factor": 2.0, "scaling.finetuned": True}, 2.0),
        ({"scaling.type": "none", "scaling.factor": 2.0}, 1.0),
        ({"scaling.type": "linear", "scaling.factor": 0.0}, 1.0),
        ({"scaling.original_context_length": 64, "scaling.attn_factor": 1.0}, 1.0),
    ],
)
def test_linear_scaling_is_read_as_llama_cpp_reads_it(fields, factor, write):
    model = open_gguf(write(**{f"llama__rope__{name}": value for name, value in fields.items()}))
    config = from_hugging_face(model.fields, "m.gguf")
    scaling = "none" if factor == 1.0 else "linear"
    assert (config.rope_scaling, config.rope_factor) == (scaling, factor)


HEAD = 64
LARGE = {
    "llama.attention.key_length": HEAD,
    "llama.attention.value_length": HEAD,
    "llama.rope.dimension_count": HEAD,
}


def rope_factors(factor=32.0, low=1.0, high=4.0, length=8192):
    """The divisors as llama.cpp's converter computes them, one frequency after the other."""
    divisors = []
    for i in range(0, HEAD, 2):
        wavelength = 2 * np.pi * 500_000.0 ** (i / HEAD)
        if wavelength < length / high:
            divisors.append(1.0)
        elif wavelength > length / low:
            divisors.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def test_the_divisors_of_llama_3_are_its_scaling(write):
    tensors = weights(HEAD) | {"rope_freqs.weight": rope_factors()}
    model = open_gguf(write(tensors, **LARGE))
    config = from_hugging_face(model.fields, "m.gguf")
    assert (config.rope_scaling, config.rope_factor) == ("llama3", 32.0)
    plain = dataclasses.replace(config, rope_scaling="none")
    assert isinstance(config, DecoderConfig) and "rope_freqs.weight" not in model.tensors
    np.testing.assert_allclose(
        frequencies(plain, local=False) / rope_factors(),
        frequencies(config, local=False),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("divisors", "fields", "message"),
    [
        (rope_factors(high=8.0), {}, r"number \d+ is .*; expected the .* of Llama 3's scaling by"),
        (rope_factors(length=4096), {}, "of Llama 3's scaling by 32"),
        (rope_factors()[:-1], {}, "has 31 numbers; expected 32"),
        (rope_factors() * np.nan, {}, "expected a factor above 1"),
        (rope_factors(), {"llama.rope.scaling.factor": 2.0}, "none beside llama.rope.scaling.fac"),
        (rope_factors(), {"llama.rope.freq_base": 10_000.0}, "of Llama 3's scaling by 32"),
    ],
)  # fmt: skip
def test_other_divisors_are_refused(divisors, fields, message, write):
    path = write(weights(HEAD) | {"rope_freqs.weight": divisors}, **LARGE | fields)
    with pytest.raises(UserError, match=f"m.gguf: tensor rope_freqs.weight.*{message}"):
        open_gguf(path)


def test_divisors_of_one_are_none(write):
    tensors = weights(HEAD) | {"rope_freqs.weight": np.ones(HEAD // 2, np.float32)}
    fields = open_gguf(write(tensors, **LARGE)).fields
    assert from_hugging_face(fields, "m.gguf").rope_scaling == "none"


REFUSED = {
    "an unknown field": ({"llama.logit_scale": 0.5}, "llama.logit_scale = 0.5 is not supported"),
    "longrope": ({"llama.rope.scaling.type": "longrope"}, "scaling.type is 'longrope'; expected"),
    "its field": ({"llama.rope.scaling.yarn_beta_fast": 32.0}, "yarn_beta_fast = 32.0 is not"),
    "experts": ({"llama.expert_count": 8}, "llama.expert_count is 8; expected 0"),
    "a window": ({"llama.attention.sliding_window": 64}, "sliding_window is 64; expected 0"),
    "half a head": ({"llama.rope.dimension_count": 4}, "dimension_count is 4; expected 8"),
    "heads by layer": ({"llama.attention.head_count": [2]}, r"head_count is \[2\]; expected a who"),
    "a size of 10^12": ({"llama.block_count": 10**12}, "block_count is 1000000000000; expected"),
    "a string": ({"llama.rope.freq_base": "1e4"}, "freq_base is '1e4'; expected a number above 0"),
    "another vocabulary": ({"llama.vocab_size": 9}, "vocab_size is 9; expected the 260 embed"),
    "an adapter": ({"general.type": "adapter"}, "general.type is 'adapter'; expected 'model'"),
    "a part": ({"split.count": 2}, "split.count is 2; expected 0 or 1"),
    "another tokenizer": ({"tokenizer.ggml.model": "llama"}, "model is 'llama'; expected 'gpt2'"),
    "fewer tokens": ({"tokenizer.ggml.tokens": TOKENS[:-1]}, "is 259; expected the 260 embedding"),
    "a token twice": ({"tokenizer.ggml.tokens": [*TOKENS[:-1], "ab"]}, "merges|occurs twice"),
    "types of fewer": ({"tokenizer.ggml.token_type": [1]}, "token_type is 1; expected that of"),
    "a merge of one": ({"tokenizer.ggml.merges": ["ab"]}, "ggml.tokens and merges: "),
    "a merge of none": ({"tokenizer.ggml.merges": ["a qq"]}, "ggml.tokens and merges: "),
    "merges as numbers": ({"tokenizer.ggml.merges": [1]}, "a list of which each item is a string"),
    "no end": ({"tokenizer.ggml.eos_token_id": None}, "no field 'tokenizer.ggml.eos_token_id'"),
    "an end beyond": ({"tokenizer.ggml.eos_token_id": 260}, "expected a whole number from 0 to"),
    "an unknown option": ({"tokenizer.ggml.fold_case": True}, "fold_case = true is not supported"),
    "a template": ({"tokenizer.chat_template": 5}, "chat_template is 5; expected a string"),
    "no epsilon": ({"llama.attention.layer_norm_rms_epsilon": None}, "no field 'llama.attention"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_name(case, write):
    fields, message = REFUSED[case]
    with pytest.raises(UserError, match=message) as caught:
        open_gguf(write(**fields))
    assert "m.gguf: " in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["blk.0.ffn_gate_exps.weight", "xblk.0.attn_q.weight", "blk.0.output.weight", "attn_q.w"],
)
def test_a_tensor_of_another_model_is_refused(name, write):
    path = write(weights() | {name: np.ones((16, 16), np.float32)})
    with pytest.raises(UserError, match=f"tensor {name} is not one of a llama model"):
        open_gguf(path)


NAME = files.packed_string("general.architecture")


def with_value(content, name, type_and_value):
    """The file with another type and value of a field, and 9,000 bytes after it."""
    place = content.index(files.packed_string(name)) + len(files.packed_string(name))
    return content[:place] + type_and_value + bytes(9000)


HUGE = 2**60
BROKEN = {
    "another file": (lambda content: b"PK" + content, "does not begin with GGUF"),
    "version 1": (lambda c: c[:4] + struct.pack("<I", 1) + c[8:], "its version is 1; expected 2"),
    "big-endian": (lambda c: c[:4] + struct.pack(">I", 3) + c[8:], "it is big-endian"),
    "10^18 tensors": (lambda c: c[:8] + struct.pack("<Q", HUGE) + c[16:], "number of tensors is"),
    "10^18 fields": (lambda c: c[:16] + struct.pack("<Q", HUGE) + c[24:], "number of fields is"),
    "a string of 10^18": (
        lambda c: with_value(c, "general.architecture", struct.pack("<IQ", files.STRING, HUGE)),
        "general.architecture at byte .* needs 1,152,921,504,606,846,976 bytes, and 9,000 follow",
    ),
    "a list of 10^18": (
        lambda c: with_value(
            c, "tokenizer.ggml.merges", struct.pack("<IIQ", files.ARRAY, files.STRING, HUGE)
        ),
        "the length of tokenizer.ggml.merges is .*, too many for the 9,000 bytes that",
    ),
    "a list of lists": (
        lambda c: with_value(
            c, "tokenizer.ggml.merges", struct.pack("<IIQ", files.ARRAY, files.ARRAY, 1)
        ),
        "is a list of the unknown type 9",
    ),
    "an unknown type": (
        lambda c: with_value(c, "llama.block_count", struct.pack("<I", 77)),
        "llama.block_count is of the unknown type 77",
    ),
    "not UTF-8": (lambda c: c.replace(b"llama", b"ll\xffma", 1), "is not UTF-8"),
    "a name twice": (
        lambda c: c.replace(b"llama.block_count", b"general.architect", 1).replace(
            b"general.architecture", b"general.architect\0\0\0", 1
        ),
        "the name of a field",
    ),
    "cut short": (lambda content: content[:-40], "it ends before .* does; was it copied wholly"),
    "cut in its fields": (lambda content: content[:300], "bytes, and|too many for the"),
    "moved data": (lambda c: c[:-1], "it ends before"),
    "empty": (lambda content: b"", "it is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_at_once(case, write):
    path = write()
    spoil, message = BROKEN[case]
    with open(path, "rb") as file:
        content = file.read()
    with open(path, "wb") as file:
        file.write(spoil(content))
    with pytest.raises(UserError, match=f"not a whole GGUF file: .*({message})"):
        open_gguf(path)


def test_of_named_templates_one_is_made(write):
    named = {
        "tokenizer.chat_templates": ["tool_use"],
        "tokenizer.chat_template.tool_use": "{{ tools }}",
    }
    template = open_gguf(write(**named)).tokenizer_files["chat_template.jinja"].decode()
    assert template == one_template({"default": "{{ messages }}", "tool_use": "{{ tools }}"})


def test_the_template_and_the_tokens_are_those_of_the_file(write):
    content = open_gguf(write()).tokenizer_files
    assert content["chat_template.jinja"] == b"{{ messages }}"
    assert json.loads(content["tokenizer_config.json"]) == {
        "add_bos_token": False,
        "eos_token": "<|end|>",
    }
