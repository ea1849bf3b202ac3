"""GGUF files, written here as llama.cpp's converter writes them."""

import json

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

gguf = pytest.importorskip("gguf", reason="GGUF files are written and read with it")

from ift_jax.errors import UserError  # noqa: E402
from ift_jax.interop.gguf import open_gguf  # noqa: E402
from ift_jax.interop.hugging_face_config import from_hugging_face  # noqa: E402
from ift_jax.text.tokenizers.load import load_tokenizer  # noqa: E402
from tests.text.small_tokenizers import TEXTS  # noqa: E402

SIZES = dict(layers=2, width=64, ff=96, heads=4, kv=2)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def trained_tokenizer() -> tokenizers.Tokenizer:
    """SmolLM2's kind, from parts that are chosen here."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def weights(rng, n_vocab):
    s = SIZES
    head = s["width"] // s["heads"]
    shapes = {"model.embed_tokens": (n_vocab, s["width"]), "model.norm": (s["width"],)}
    for i in range(s["layers"]):
        shapes |= {
            f"model.layers.{i}.{name}": shape
            for name, shape in {
                "input_layernorm": (s["width"],),
                "post_attention_layernorm": (s["width"],),
                "self_attn.q_proj": (s["heads"] * head, s["width"]),
                "self_attn.k_proj": (s["kv"] * head, s["width"]),
                "self_attn.v_proj": (s["kv"] * head, s["width"]),
                "self_attn.o_proj": (s["width"], s["heads"] * head),
                "mlp.gate_proj": (s["ff"], s["width"]),
                "mlp.up_proj": (s["ff"], s["width"]),
                "mlp.down_proj": (s["width"], s["ff"]),
            }.items()
        }
    return {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


def permuted(w, n_heads):
    """llama.cpp's layout of q and k: the two halves of each head interleaved."""
    return (
        w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, w.shape[1])
        .swapaxes(1, 2)
        .reshape(w.shape)
    )


def write(path, tensors, tokenizer, quantised=(), arch="llama", **changes):
    s = SIZES
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(s["layers"])
    writer.add_context_length(128)
    writer.add_embedding_length(s["width"])
    writer.add_feed_forward_length(s["ff"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["kv"])
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    if "scaling" in changes:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(changes.get("pre", "smollm"))
    writer.add_token_list(tokens)
    writer.add_token_types([3 if t in SPECIAL else 1 for t in tokens])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{{ messages }}")
    for name, w in tensors.items():
        part = name.split(".", 3)[-1] if "layers" in name else name
        prefix = f"blk.{name.split('.')[2]}." if "layers" in name else ""
        heads = {"attn_q": s["heads"], "attn_k": s["kv"]}.get(names[part])
        w = w if heads is None else permuted(w, heads)
        if names[part] in quantised:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(
                f"{prefix}{names[part]}.weight", gguf.quants.quantize(w, kind), raw_dtype=kind
            )
        else:
            writer.add_tensor(f"{prefix}{names[part]}.weight", w)
    if "extra" in changes:
        writer.add_tensor("rope_freqs.weight", np.ones(8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_tensors_config_and_tokenizer(tmp_path):
    tokenizer = trained_tokenizer()
    want = weights(np.random.default_rng(0), tokenizer.get_vocab_size())
    path = tmp_path / "m.gguf"
    write(path, want, tokenizer, quantised=("ffn_down", "attn_q"))
    fields, tensors, files = open_gguf(str(path))
    config = from_hugging_face(fields, "m.gguf")
    assert (config.norm_eps, config.rope_theta, config.tied_embedding) == (1e-5, 1e5, True)
    assert (config.head_dim, config.n_kv_heads, config.max_length) == (16, 2, 128)
    assert set(tensors) == {f"{name}.weight" for name in want}
    for name, w in want.items():
        tensor = tensors[f"{name}.weight"]
        assert tensor.shape == w.shape
        part = (slice(3, 9), slice(2, None))[: w.ndim]
        quantised = name.endswith(("down_proj", "q_proj"))
        np.testing.assert_allclose(
            tensor.read(part), w[part], atol=np.abs(w).max() / 127 if quantised else 0
        )
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    ours = load_tokenizer(str(tmp_path))
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (1, 2, 0)
    for text in ("  42 apples", "Anna counts 456 systems!", "\u00e9 \U0001f600\n\n x", *SPECIAL):
        assert ours.encode_with_controls(text) == tokenizer.encode(text).ids
    assert files["chat_template.jinja"] == b"{{ messages }}"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("gpt-2", ["a", "Ġ", "Ġ12345"]),
        ("smollm", ["a", "ĠĠ", *"12345"]),
        ("llama-bpe", ["a", "Ġ", "Ġ", "123", "45"]),
        ("qwen2", ["a", "Ġ", "Ġ", *"12345"]),
    ],
)
def test_how_digits_are_cut(pre, words, tmp_path):
    write(tmp_path / "m.gguf", {}, trained_tokenizer(), pre=pre)
    made = tokenizers.Tokenizer.from_str(
        open_gguf(str(tmp_path / "m.gguf"))[2]["tokenizer.json"].decode()
    )
    assert [word for word, _ in made.pre_tokenizer.pre_tokenize_str("a  12345")] == words


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(arch="mamba"), "general.architecture is 'mamba'; expected 'llama'"),
        (dict(pre="tekken"), "with pre 'tekken'; expected"),
        (dict(scaling=1), "llama.rope.scaling.type = 'yarn' is not supported"),
        (dict(extra=1), "tensor rope_freqs.weight is not one of a Llama model"),
    ],
)
def test_what_is_not_understood_is_refused(changes, message, tmp_path):
    tokenizer = trained_tokenizer()
    path = tmp_path / "m.gguf"
    write(path, weights(np.random.default_rng(0), 420), tokenizer, **changes)
    with pytest.raises(UserError, match=message):
        open_gguf(str(path))


def test_no_file_and_half_a_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_gguf(str(tmp_path / "none.gguf"))
    (tmp_path / "half.gguf").write_bytes(b"GGUF\x03\0\0\0")
    with pytest.raises(UserError, match="not a whole GGUF file"):
        open_gguf(str(tmp_path / "half.gguf"))
