"""T5's tasks and mixtures: rates, registration, local rows and mock TFDS rows; the recipe."""

import importlib
import json
import sys

import pytest
import seqio

from ift_jax.config import files as config_file
from ift_jax.config.schema import Config, DataConfig, TokenizerConfig
from ift_jax.data.randomness import Draws
from ift_jax.errors import UserError
from ift_jax.preparation import seqio_registry
from ift_jax.preparation.prepare import prepare
from tasks.t5 import tasks as t5
from tests.tasks.tfds_rows import features_of, labels_of, shaped_row

pytestmark = pytest.mark.usefixtures("own_registry")


def _rates(name):
    mixture = seqio.MixtureRegistry.get(name)
    return {task.name.removeprefix("t5_"): mixture.get_rate(task) for task in mixture.tasks}


def test_published_rates():
    t5.register("")
    glue = {
        "glue_cola": 8551, "glue_sst2": 67349, "glue_mrpc": 3668, "glue_qqp": 363849,
        "glue_stsb": 5749, "glue_mnli": 392702, "glue_qnli": 104743, "glue_rte": 2490,
    }  # fmt: skip
    super_glue = {
        "super_glue_boolq": 9427, "super_glue_cb": 250, "super_glue_copa": 400,
        "super_glue_multirc": 27243, "super_glue_record": 138854, "super_glue_rte": 2490,
        "super_glue_wic": 5428, "super_glue_wsc": 259, "dpr": 1322,
    }  # fmt: skip
    assert _rates("glue_proportional") == glue
    assert _rates("super_glue_proportional") == super_glue
    others = {
        "cnn_dailymail": 287113, "squad": 87599, "wmt_ende": 2**19, "wmt15_enfr": 2**19,
        "wmt16_enro": 2**19,
    }  # fmt: skip
    halved = {"glue_rte": 1245, "super_glue_rte": 1245}
    assert _rates("t5_all_proportional") == glue | super_glue | others | halved
    temperature = _rates("t5_all_temperature")
    assert temperature["glue_cola"] == pytest.approx(8551**0.5)
    assert temperature["wmt15_enfr"] == temperature["wmt_ende"] == pytest.approx(2**10.5)
    assert temperature["wmt16_enro"] == pytest.approx(610320**0.5)  # It is below this cap.
    assert set(_rates("t5_all_equal").values()) == {1.0}
    # Without one of the benchmarks, the rate of RTE is not halved.
    assert _rates("t5_leave_one_out_glue") == super_glue | others
    assert _rates("t5_leave_one_out_super_glue") == glue | others
    everything = glue | super_glue | others | halved
    everything.pop("squad")
    assert _rates("t5_leave_one_out_squad") == everything
    assert _rates("wsc_dpr_proportional") == {"super_glue_wsc": 259, "dpr": 1322}
    assert "glue_wnli" not in _rates("glue_proportional")


def test_registering_is_idempotent_and_reads_nothing(tmp_path, monkeypatch):
    for name in [
        n for n in sys.modules if n.startswith("tasks.t5.tasks") or n.endswith("sources.tfds")
    ]:
        monkeypatch.delitem(sys.modules, name)
    importlib.import_module("tasks.t5.tasks").register("no such folder")
    monkeypatch.undo()
    for registry in (seqio.TaskRegistry, seqio.MixtureRegistry):
        for name in list(registry.names()):
            registry.remove(name)
    t5.register(str(tmp_path))
    names = set(seqio.TaskRegistry.names())
    t5.register(str(tmp_path))
    assert set(seqio.TaskRegistry.names()) == names
    assert not any(name.startswith("t5_c4") for name in names)
    # The evaluation finds a metric by its module and name.
    for name, task in t5.TASKS.items():
        for metric in task.metric_fns:
            assert "<" not in metric.__qualname__, name
            assert metric.__module__ == "tasks.t5.metrics", name


def test_all_mix_needs_the_vocabulary(tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(b"")  # Registering does not read it.
    t5.register(str(tmp_path))
    assert _rates("t5_all_mix")["c4_span_corruption"] == 1e6
    assert _rates("t5_all_mix")["glue_rte"] == 1245


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("glue_mnli", "validation"), ("super_glue_multirc", "validation"),
        ("super_glue_record", "train"), ("squad", "validation"), ("wmt16_enro", "validation"),
        ("trivia_qa", "train"),
    ],
)  # fmt: skip
def test_tfds_rows_become_records(name, split):
    """A format reads the fields that TFDS has."""
    tfds = pytest.importorskip("tensorflow_datasets")
    t5.register("")
    task = seqio.TaskRegistry.get(f"t5_{name}")
    with tfds.testing.mock_data(num_examples=3):
        records = list(task.get_dataset(None, split, shuffle=False).as_numpy_iterator())
    expanded = name in ("super_glue_record", "trivia_qa")  # A random row may make no example.
    assert len(records) == 3 or expanded
    for record in records:
        assert record["targets"] and record["inputs"]
        assert ("references" in record) == t5.TASKS[name].references


def _records(name, split, **given):
    task = t5.TASKS[name]
    row = shaped_row(task.dataset, **given)
    rows = task.expand(row, split) if task.expand else [row]
    return [task.render(row, Draws(0, name, i), split) for i, row in enumerate(rows)]


CLASSIFIED = {name for name, task in t5.TASKS.items() if "label" in features_of(task.dataset)}
_OTHER_TARGETS = {"glue_stsb", "super_glue_wsc", "glue_wnli", "dpr"}


@pytest.mark.parametrize("name", sorted(CLASSIFIED - _OTHER_TARGETS))
def test_every_label_of_tfds_becomes_its_name(name):
    for label in labels_of(t5.TASKS[name].dataset):
        [record] = _records(name, "validation", label=label)
        assert record["targets"] == label
    [record] = _records(name, "test", label=-1)
    assert record["targets"] == "<unk>"


def test_labels_that_are_no_names():
    for score in (0.0, 1.8, 5.0):
        assert _records("glue_stsb", "train", label=score)[0]["targets"] == f"{score:.1f}"
    schema = {"text": "Ann ran as she was late .", "span2_text": "she", "span2_index": 3}
    for label in labels_of("super_glue/wsc.fixed"):
        trained = _records("super_glue_wsc", "train", label=label, **schema)
        assert [r["targets"] for r in trained] == ["span1_text text"] * (label == "True")
        [record] = _records("super_glue_wsc", "validation", label=label, **schema)
        assert json.loads(record["references"])[1] == f"\x1flabel={label}"
    pair = {"sentence1": "Ann ran as she was late.", "sentence2": "Ann was late."}
    for label, said in {"not_entailment": "False", "entailment": "True"}.items():
        [record] = _records("glue_wnli", "validation", label=label, **pair)
        assert json.loads(record["references"]) == ["Ann", f"\x1flabel={said}"]
    for label in labels_of("definite_pronoun_resolution"):
        [record] = _records("dpr", "train", label=label, candidates=["Bob", "Tom"])
        assert record["targets"] == ["Bob", "Tom"][int(label)]


@pytest.mark.parametrize("name", sorted(set(t5.TASKS) - CLASSIFIED))
def test_rows_of_tfds_shape_are_read(name):
    mars = {"answer": {"normalized_aliases": ["mars"]}}
    given = mars | {"search_results": {"search_context": ["It is Mars."]}}
    records = _records(name, "train", **(given if name == "trivia_qa" else {}))
    assert records and all(record["inputs"] and record["targets"] for record in records)


def test_label_names_and_fields_are_those_of_tfds():
    checked = 0
    for name, task in t5.TASKS.items():
        bound = getattr(task.render, "keywords", {})
        if "labels" in bound:
            features = features_of(task.dataset)
            assert tuple(labels_of(task.dataset)) == bound["labels"], name
            assert {dict(bound["rename"]).get(key, key) for key in bound["keys"]} <= set(features)
            checked += 1
    assert checked == 16


WSC = [
    {
        "text": f"Ann told Sue that she won {i} games .",
        "span1_text": noun,
        "span1_index": 0,
        "span2_text": "she",
        "span2_index": 4,
        "label": int(noun == "Ann"),
        "idx": i,
    }
    for i in range(6)
    for noun in ("Ann", "Sue")
]
DPR = [
    {
        "sentence": f"Bob asked Tom if he has {i} coins.",
        "pronoun": "he",
        "candidates": ["Bob", "Tom"],
        "label": 1,
    }
    for i in range(9)
]


def _config(tmp_path, mixture):
    for folder, rows in {"super_glue/wsc.fixed": WSC, "definite_pronoun_resolution": DPR}.items():
        (tmp_path / folder).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (tmp_path / folder / f"{split}.jsonl").write_text(text)
    return Config(
        tokenizer=TokenizerConfig(train_vocab_size=300),
        data=DataConfig(
            modules=("tasks.t5.tasks",),
            root=str(tmp_path),
            mixture=mixture,
            store_dir=str(tmp_path / "stores"),
            processes=1,
        ),
    )


def test_local_rows_become_stores(tmp_path):
    config = _config(tmp_path, "wsc_dpr_proportional")
    mixture = prepare(config, "train", log=lambda _: None).mixture
    assert list(mixture.tasks) == ["t5_dpr", "t5_super_glue_wsc"]
    assert [len(store) for store in mixture.stores] == [
        9,
        6,
    ]  # WSC trains on the right referents only.
    assert mixture.rates.tolist() == [1322, 259]
    evaluation = prepare(config, "eval", log=lambda _: None).mixture
    assert list(evaluation.tasks) == ["t5_super_glue_wsc"] and len(evaluation.stores[0]) == 12
    assert evaluation.stores[0].references(1) == ("Sue", "\x1flabel=False")
    assert list(evaluation.metric_fns[0]) == ["tasks.t5.metrics:wsc_accuracy"]


def test_missing_data_is_named_in_one_line(tmp_path):
    config = _config(tmp_path, "glue_proportional")
    with pytest.raises(UserError, match="glue/cola: the split 'train' is not on this machine; put"):
        prepare(config, "train", log=lambda _: None)


def test_the_recipe_has_the_published_numbers():
    def load(run):
        return config_file.load(f"configs/t5_finetune.py:{run}")

    config = load("xl,super_glue")
    data = config.data
    assert data.mixture == "super_glue_proportional"
    assert data.eval_mixture == "super_glue_eval"
    assert (data.inputs_length, data.pack) == (512, True)
    train = config.train
    assert (train.batch_size, train.steps) == (128, 262_144)
    assert (train.save_every, train.eval_every) == (5000, 1000)
    optimizer = config.optimizer
    assert (optimizer.name, optimizer.learning_rate) == ("adafactor", 1e-3)
    assert (optimizer.schedule, optimizer.warmup_steps) == ("constant", 0)
    assert (optimizer.clip_norm, optimizer.weight_decay) == (0, 0)
    loss = config.loss
    assert (loss.normalization, loss.z_loss, loss.label_smoothing) == ("sum", 1e-4, 0.0)
    model = config.model
    assert (model.d_model, model.d_ff, model.vocab_size) == (2048, 5120, 32128)
    assert (model.n_heads, model.head_dim) == (32, 64)
    assert (model.n_encoder_layers, model.n_decoder_layers, model.dropout) == (24, 24, 0.1)
    assert (model.activation, model.tied_embedding) == ("gated_gelu", False)
    lengths = {"glue": 84, "super_glue": 62, "squad": 97, "cnn_dailymail": 512}
    assert {name: load(f"small,{name}").data.targets_length for name in lengths} == lengths
    old = config_file.load("configs/t5_finetune.py:11b_1.0,squad").model
    assert (old.activation, old.tied_embedding, old.d_ff) == ("relu", True, 65536)
    t5.register("")
    from configs.t5_finetune import BENCHMARKS

    for mixture, evaluated, _ in BENCHMARKS.values():
        for name in (mixture, evaluated):
            seqio_registry.resolve(name, "data.mixture")
    with pytest.raises(UserError, match="expected SIZE,BENCHMARK"):
        load("huge,glue")
