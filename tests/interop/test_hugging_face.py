"""Folders of `transformers` in, and out again: the same tensors, logits and greedy text."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from ift_jax.config import files as config_file
from ift_jax.config.schema import FormatConfig
from ift_jax.decoding import generate
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_names import at, leaves
from ift_jax.models import build_model
from ift_jax.sharding import rules

pytest.importorskip("torch", reason="the reference models are torch modules")
pytest.importorskip("transformers", reason="the reference models live there")

import torch  # noqa: E402
import transformers  # noqa: E402

from ift_jax.checkpoint.import_model import import_model  # noqa: E402
from ift_jax.checkpoint.model_source import init_params, open_model_source, resolve_init
from ift_jax.checkpoint.workdir_model import load_model
from ift_jax.evaluation.text_generator import TextGenerator
from ift_jax.interop.hugging_face_export import export
from ift_jax.interop.hugging_face_weights import fit_vocabulary, load_params
from ift_jax.interop.safetensors_files import open_safetensors
from tests.interop.folders import write_folder, write_tokenizer
from tests.models import hugging_face as hf  # noqa: E402

N_NEW = 32
STOP = (1, 7)
CORE = ("llama3", "gemma3", "1.1")
each_family = pytest.mark.parametrize(
    "name",
    [
        name if name in CORE else pytest.param(name, marks=pytest.mark.slow)
        for name in (*hf.DECODERS, *hf.T5S)
    ],
)


def auto(folder, name):
    kind = "Seq2SeqLM" if name in hf.T5S else "CausalLM"
    return getattr(transformers, f"AutoModelFor{kind}").from_pretrained(
        folder, attn_implementation="eager", dtype="auto"
    )


def logits(model, name):
    rng = np.random.default_rng(3)
    ids = torch.tensor(rng.integers(3, hf.VOCAB, (2, 21)))
    with torch.no_grad():
        if name in hf.T5S:
            return model(input_ids=ids, decoder_input_ids=ids[:, :9]).logits.float().numpy()
        return model(ids).logits.float().numpy()


def raw(folder):
    whole = open_safetensors(str(folder))
    return {
        name: (
            tensor.dtype,
            tensor.shape,
            tensor.read((slice(None),) * len(tensor.shape)).tobytes(),
        )
        for name, tensor in whole.items()
    }


@each_family
def test_import_greedy_text_and_export(name, tmp_path):
    reference = hf.reference(name)
    folder = write_folder(tmp_path / "released", name)
    source = open_model_source(str(folder))
    model = build_model(source.config.model)
    params = source.load(model, hf.mesh())

    rng = np.random.default_rng(4)
    prompts = [rng.integers(3, hf.VOCAB, n).tolist() for n in (9, 12)]
    options = dict(max_new_tokens=N_NEW, stop_ids=(1,), pad_id=0)
    got = generate(model, params, prompts, **options)
    for prompt, ours in zip(prompts, got, strict=True):
        assert ours == hf.greedy(reference, prompt, max_new_tokens=N_NEW)
    assert max(map(len, got)) >= 20

    tokenizer = source.tokenizer()
    out = tmp_path / "exported"
    template = "{% for m in messages %}{{ m['content'] }} </s>{% endfor %}"
    export(
        model,
        params,
        tokenizer,
        str(out),
        template=template,
        stop_ids=STOP,
        source_dtypes=source.dtypes(),
        shard_bytes=50_000,
    )
    assert len(list(out.glob("model-*.safetensors"))) > 2
    back = auto(out, name)
    np.testing.assert_array_equal(logits(back, name), logits(reference, name))
    assert back.generation_config.eos_token_id == list(STOP)
    # transformers 5.23 reads any tokenizer beside a qwen2 as Qwen2's own, whatever the folder says.
    if not name.startswith("qwen2"):
        theirs = transformers.AutoTokenizer.from_pretrained(out)
        chat = [{"role": "user", "content": "w9 w11"}]
        ids = theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
        assert ids == [9, 11, 1] and theirs.pad_token_id == 0
    assert open_model_source(str(out)).config.model == source.config.model


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen3", "1.1"])
def test_an_untouched_model_comes_out_with_the_same_bytes(name, dtype, tmp_path):
    folder = write_folder(tmp_path / "released", name, dtype)
    import_model(str(folder), str(tmp_path / "workdir"))
    trained = load_model(open_model_source(str(tmp_path / "workdir")))
    assert {leaf.dtype for leaf in jax.tree.leaves(trained.params)} == {np.dtype("float32")}
    out = tmp_path / "exported"
    dtypes = open_model_source(str(tmp_path / "workdir")).dtypes()
    export(trained.model, trained.params, trained.tokenizer, str(out), source_dtypes=dtypes)
    before, after = raw(folder), raw(out)
    assert before and {n: after[n] for n in before} == before
    assert set(after) - set(before) <= {"lm_head.weight"}
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == str(dtype)[6:]


def test_float16_that_does_not_fit_is_refused(tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", "llama3")))
    model = build_model(source.config.model)
    params = source.load(model, hf.mesh())
    params["embedding"] = params["embedding"].at[3, 3].set(1e5)
    with pytest.raises(UserError, match=r"float16: model.embed_tokens.weight .* 1e\+05"):
        export(model, params, source.tokenizer(), str(tmp_path / "out"), dtype="float16")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match="not empty"):
        export(model, params, source.tokenizer(), str(tmp_path / "full"))


@pytest.mark.parametrize("name", ["gemma3", "1.0"])
def test_each_device_gets_its_part(name, tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", name)))
    model = build_model(source.config.model)
    whole = source.load(model, hf.mesh())
    mesh = hf.mesh(fsdp=2, tensor=4)
    cut = source.load(model, mesh)
    shardings = dict(leaves(rules.tree_shardings(mesh, model.logical_axes, model.shapes)))
    n_cut = 0
    for path, leaf in leaves(cut):
        assert leaf.sharding == shardings[path]
        n_cut += not leaf.sharding.is_fully_replicated
        np.testing.assert_array_equal(leaf, at(whole, path))
    assert n_cut > 5
    export(model, cut, source.tokenizer(), str(tmp_path / "out"), source_dtypes=source.dtypes())
    assert {n: raw(tmp_path / "out")[n] for n in source.dtypes()} == raw(tmp_path / "released")


def test_new_rows_are_the_mean_of_the_old(tmp_path):
    source = open_model_source(str(write_folder(tmp_path / "released", "llama")))
    own = build_model(source.config.model)
    params = source.load(own, hf.mesh())
    wider = build_model(dataclasses.replace(source.config.model, vocab_size=256))
    # 150 ids were given, 4 added: those and the 96 rows that are new are means; the padding
    # rows between stay.
    fitted = fit_vocabulary(params, wider, hf.mesh(), n_given=150, n_tokens=154)
    for name, old, new in (
        ("embedding", params["embedding"], fitted["embedding"]),
        ("head", params["head"].T, fitted["head"].T),
    ):
        assert new.shape == (256, 48), name
        np.testing.assert_array_equal(new[:150], old[:150])
        np.testing.assert_array_equal(new[154:160], old[154:160])
        mean = np.asarray(old)[:150].mean(axis=0)
        for row in (*range(150, 154), 160, 255):
            np.testing.assert_allclose(new[row], mean, atol=1e-6)
    same = fit_vocabulary(params, own, hf.mesh(), n_given=160, n_tokens=160)
    assert same["embedding"] is params["embedding"]


BASE = {
    "data": {"mixture": "m", "max_length": 64},
    "train": {"steps": 1},
}


def config_from(folder, **model):
    fields = BASE | {"model": {"init_from": str(folder)} | model}
    return config_file.from_dict(fields)


def test_a_run_starts_from_a_folder_or_a_workdir(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    config = resolve_init(config_from(folder, dropout=0.1, remat="full"))
    assert (config.model.d_model, config.model.head_dim) == (48, 20)
    assert (config.model.dropout, config.model.remat) == (0.1, "full")
    assert config.tokenizer.path == str(folder)
    assert resolve_init(config) == config
    model = build_model(config.model)
    mesh = hf.mesh()
    shardings = rules.tree_shardings(mesh, model.logical_axes, model.shapes)
    params = init_params(model, config, shardings)
    want = hf.decoder_params(hf.reference("llama_tied"), model.config)
    jax.tree.map(np.testing.assert_array_equal, params, want)

    import_model(str(folder), str(tmp_path / "run"))
    config = resolve_init(config_from(tmp_path / "run"))
    assert config.tokenizer.path == str(tmp_path / "run" / "tokenizer")
    jax.tree.map(np.testing.assert_array_equal, init_params(model, config, shardings), want)


def test_a_larger_tokenizer_makes_more_rows(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    write_tokenizer(folder, n_words=170)
    config = resolve_init(config_from(folder))
    assert config.model.vocab_size == 256
    assert load_model(open_model_source(str(folder))).params["embedding"].shape == (256, 48)

    # A run that goes on from an import with a larger tokenizer: the new rows are means.
    write_tokenizer(folder)
    import_model(str(folder), str(tmp_path / "run"))
    write_tokenizer(tmp_path / "larger", n_words=163)
    config = config_from(tmp_path / "run")
    tokenizer = dataclasses.replace(config.tokenizer, path=str(tmp_path / "larger"))
    config = resolve_init(dataclasses.replace(config, tokenizer=tokenizer))
    model = build_model(config.model)
    shardings = rules.tree_shardings(hf.mesh(), model.logical_axes, model.shapes)
    table = np.asarray(init_params(model, config, shardings)["embedding"])
    np.testing.assert_allclose(table[160:], np.tile(table[:160].mean(axis=0), (96, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (dict(d_model=96), r"config.model.d_model: 96, but .* has 48"),
        (dict(vocab_size=128), "config.model.vocab_size: expected at least the 160 rows"),
        (dict(architecture="encoder_decoder"), "architecture: encoder_decoder, but .* is decoder"),
    ],
)
def test_what_does_not_fit_the_weights_is_refused(model, message, tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    with pytest.raises(UserError, match=message):
        resolve_init(config_from(folder, **model))


def test_rows_longer_than_the_model_are_refused(tmp_path):
    folder = write_folder(tmp_path / "released", "llama_tied")
    config = config_from(folder)
    data = dataclasses.replace(config.data, max_length=512)
    with pytest.raises(UserError, match=r"max_length: 512 is more than the 256 positions"):
        resolve_init(dataclasses.replace(config, data=data))


def edit_json(path, **fields):
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(before | fields))


def test_what_ends_an_answer_comes_from_generation_config(tmp_path, caplog, capfd):
    folder, workdir = write_folder(tmp_path / "released", "llama_tied"), tmp_path / "run"
    edit_json(folder / "config.json", eos_token_id=4)
    (folder / "generation_config.json").unlink(missing_ok=True)
    assert open_model_source(str(folder)).config.evaluation.stop_ids == (4,)
    edit_json(folder / "generation_config.json", eos_token_id=[1, 7, 9])
    import_model(str(folder), str(workdir))
    caplog.clear()
    capfd.readouterr()
    trained = load_model(open_model_source(str(workdir)))
    assert "read_only" not in caplog.text + "".join(capfd.readouterr())
    assert not caplog.records, caplog.text
    assert trained.config.evaluation.stop_ids == (1, 7, 9)
    assert resolve_init(config_from(workdir)).evaluation.stop_ids == (1, 7, 9)
    config = dataclasses.replace(trained.config, format=FormatConfig("plain"))
    text_generator = TextGenerator(config, trained.tokenizer, trained.model)
    assert set(text_generator.stops.ids) == {1, 7, 9}
    # A run with another tokenizer has other ids.
    config = config_from(folder)
    tokenizer = dataclasses.replace(config.tokenizer, path=str(folder))
    assert not resolve_init(dataclasses.replace(config, tokenizer=tokenizer)).evaluation.stop_ids
    edit_json(folder / "generation_config.json", eos_token_id="</s>")
    with pytest.raises(UserError, match="generation_config.json: eos_token_id is '</s>'; expected"):
        open_model_source(str(folder))


def rewrite_index(folder, change):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def edit_config(folder, **fields):
    edit_json(folder / "config.json", **fields)


def shard(folder, i=0):
    return sorted(folder.glob("model-*.safetensors"))[i]


def only_pickles(folder):
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def no_weights(folder):
    only_pickles(folder)
    (folder / "pytorch_model.bin").unlink()


def cut_short(folder):
    shard(folder).write_bytes(shard(folder).read_bytes()[:-10])


def escape(folder):
    rewrite_index(folder, lambda m: m.update(dict.fromkeys(m, "../x.safetensors")))


BAD = {
    "pickles": (only_pickles, "safe_serialization=True"),
    "nothing": (no_weights, "expected model.safetensors"),
    "cut short": (cut_short, "not a whole safetensors file: it ends before"),
    "a shard missing": (lambda f: shard(f).unlink(), "a shard is missing"),
    "outside": (escape, r"names '../x.safetensors'; expected a .safetensors file beside"),
    "not json": (
        lambda f: (f / "model.safetensors.index.json").write_text("{"),
        "index.json: expected a JSON object",
    ),
    "layers missing": (
        lambda f: edit_config(f, num_hidden_layers=4),
        r"missing: model.layers.3.* \(9 in all\)",
    ),
    "layers too many": (
        lambda f: edit_config(f, num_hidden_layers=2),
        r"surplus: model.layers.2.* \(9 in all\)",
    ),
    "another width": (
        lambda f: edit_config(f, intermediate_size=96),
        r"misshapen: model.layers.0.mlp.down_proj.weight \(48, 80\) instead of \(48, 96\), .*9 in",
    ),
    "family": (lambda f: edit_config(f, model_type="mamba"), "model_type is 'mamba'; supported"),
    "images": (lambda f: edit_config(f, model_type="gemma3"), "text-only one is 'gemma3_text'"),
    "unknown field": (
        lambda f: edit_config(f, residual_multiplier=0.22),
        "residual_multiplier = 0.22 is not supported",
    ),
    "rope": (
        lambda f: edit_config(f, rope_parameters={"rope_type": "yarn", "factor": 4.0}),
        "rope_type is 'yarn'; expected",
    ),
    "activation": (lambda f: edit_config(f, hidden_act="relu2"), "hidden_act is 'relu2'; expected"),
    "quantised": (
        lambda f: edit_config(f, quantization_config={"bits": 4}),
        "quantization_config = .* is not supported",
    ),
    "a field missing": (
        lambda f: edit_config(f, intermediate_size=None),
        "no field 'intermediate_size'",
    ),
    "tied and not": (
        lambda f: edit_config(f, tie_word_embeddings=True),
        "lm_head.weight differs from model.embed_tokens.weight",
    ),
}


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("folders") / "released", "llama3")


@pytest.mark.parametrize("case", BAD)
def test_bad_folders_are_refused_in_one_line(case, released, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(released, folder)
    spoil, message = BAD[case]
    spoil(folder)

    def read():
        source = open_model_source(str(folder))
        source.load(build_model(source.config.model), hf.mesh())

    with pytest.raises(UserError, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)


def test_known_copies_and_leftovers_are_fine(released, tmp_path):
    whole = dict(open_safetensors(str(released)))
    whole["model.layers.0.self_attn.rotary_emb.inv_freq"] = whole["model.norm.weight"]
    model = build_model(open_model_source(str(released)).config.model)
    load_params(model, hf.mesh(), whole, "folder")
    t5 = hf.tensors_of(hf.reference("1.0")) | {}
    assert "encoder.embed_tokens.weight" in t5  # Kept by state_dict beside shared.weight.
    odd = dict(t5)
    odd["encoder.embed_tokens.weight"] = dataclasses.replace(
        odd["shared.weight"], read=lambda index: t5["shared.weight"].read(index) + 1
    )
    model = build_model(hf.t5_pair("1.0")[1])
    with pytest.raises(UserError, match="encoder.embed_tokens.weight differs"):
        load_params(model, hf.mesh(), odd, "folder")


def test_import_refuses_a_folder_with_something_in_it(released, tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="is not empty"):
        import_model(str(released), str(tmp_path))
