"""k-shot twins of text tasks: exemplars, length, metrics, mixtures."""

import json

import pytest
import seqio
import tensorflow as tf

from ift_jax.errors import UserError
from ift_jax.metrics import exact_match, metric_by_name, metric_name
from ift_jax.preparation.seqio_registry import resolve
from ift_jax.sources import few_shot
from ift_jax.sources.base import PythonDataSource
from ift_jax.sources.demonstrations import PromptLimit
from ift_jax.sources.features import CHAT_FEATURES, TEXT_FEATURES
from ift_jax.sources.few_shot_source import FewShotSource
from ift_jax.sources.register import register_mixture, register_task

pytestmark = pytest.mark.usefixtures("own_registry")


class Squares(PythonDataSource):
    """Numbers and their squares."""

    def __init__(self, splits):
        self._ranges = splits
        super().__init__(splits)

    fields = ("inputs", "targets", "references")

    def files(self, split):
        return []

    def items(self, split):
        return self._ranges[split]

    def render(self, item, split, index, seed):
        square = str(item * item)
        return {"inputs": f"{item}?", "targets": square, "references": json.dumps([square])}


def _register(name="squares", **splits):
    splits = splits or {"train": range(50), "validation": range(40, 60)}
    register_task(name, Squares(splits), metric_fns=[exact_match])
    return name


def _blocks(record):
    *solved, question = record["inputs"].split("\n\n")
    return solved, question


def test_a_prompt_to_the_letter():
    _register(train=range(3), test=range(7, 8))
    name = few_shot.register_shots("squares", 3)
    assert name == "squares_3_shot"
    [record] = seqio.TaskRegistry.get(name).source.records("test")
    solved, question = _blocks(record)
    assert sorted(solved) == ["0?\n0", "1?\n1", "2?\n4"] and question == "7?\n"
    assert (record["targets"], record["references"]) == ("49", '["49"]')


def test_exemplars_never_are_the_question():
    for split, name in (("validation", _register()), ("test", _register("held", test=range(8)))):
        twin = seqio.TaskRegistry.get(few_shot.register_shots(name, 5))
        for seed in range(20):
            for record in twin.source.records(split, seed=seed):
                solved, question = _blocks(record)
                assert len(solved) == len(set(solved)) == 5
                assert question not in {block.split("\n")[0] + "\n" for block in solved}


def test_more_shots_than_examples():
    _register(test=range(4))
    twin = seqio.TaskRegistry.get(few_shot.register_shots("squares", 32))
    for record in twin.source.records("test"):
        solved, question = _blocks(record)
        assert len(solved) == 3


def test_draws_follow_seed_and_index_alone():
    _register()
    source = seqio.TaskRegistry.get(few_shot.register_shots("squares", 4)).source
    first = list(source.records("validation", seed=1))
    assert first == list(source.records("validation", seed=1))
    assert first != list(source.records("validation", seed=2))
    shards = [
        list(source.records("validation", seed=1, shard_index=i, num_shards=3)) for i in range(3)
    ]
    assert [shards[i % 3][i // 3] for i in range(20)] == first


def test_what_does_not_fit_is_left_out():
    _register()
    full = 0
    for bound in range(0, 120, 10):
        source = FewShotSource(seqio.TaskRegistry.get("squares"), 8, limit=PromptLimit(bound))
        for record in source.records("validation"):
            solved, _ = _blocks(record)
            assert not solved or len(record["inputs"]) <= bound
            full += len(solved) == 8
    assert full  # And with room enough all of them are there.


def test_exemplars_come_from_all_over_the_split():
    _register(train=range(9000), test=range(9000, 9100))
    source = seqio.TaskRegistry.get(few_shot.register_shots("squares", 5)).source
    shown = [
        int(block.split("?")[0])
        for record in source.records("test")
        for block in _blocks(record)[0]
    ]
    assert min(shown) < 1000 and max(shown) > 8000


def test_the_same_metrics_on_the_first_block():
    _register()
    twin = seqio.TaskRegistry.get(few_shot.register_shots("squares", 1))
    [metric] = twin.metric_fns
    found = metric_by_name(metric_name(metric))
    for function in (metric, found):
        assert function(["9", "4"], ["9\n\n5?\n25", "5"]) == {"exact_match": 0.5}
    assert found == metric


def test_a_metric_of_seqio_gets_the_postprocessed_first_block():
    def share_right(targets, predictions):
        return {"share_right": sum(map(int.__eq__, targets, predictions)) / len(targets)}

    def to_number(text, example=None, is_target=False):
        return int(text)

    source = Squares({"train": range(9), "validation": range(9)})
    register_task("squares", source, metric_fns=[share_right], postprocess_fn=to_number)
    twin = seqio.TaskRegistry.get(few_shot.register_shots("squares", 1))
    assert twin.predict_metric_fns[1] is share_right  # After exact match.
    assert twin.postprocess_fn("9\n\n5?\n25", example={}, is_target=False) == 9
    assert twin.postprocess_fn("9", example={}, is_target=True) == 9


def test_every_text_task_and_mixture_gets_twins():
    _register("a", train=range(10), test=range(5))
    _register("b", train=range(30))
    register_mixture("both", ["a", ("b", 2.0)])
    register_mixture("outer", [("both", 3.0)])
    seqio.TaskRegistry.add(
        "chat", source=Squares({"train": range(3)}), preprocessors=[], output_features=CHAT_FEATURES
    )
    few_shot.register("")
    few_shot.register("")
    mixture = seqio.MixtureRegistry.get("both_5_shot")
    assert {t.name: mixture.get_rate(t) for t in mixture.tasks} == {"a_5_shot": 10, "b_5_shot": 2.0}
    outer = seqio.MixtureRegistry.get("outer_1_shot")
    rates = {t.name: outer.get_rate(t) for t in outer.tasks}
    assert rates["a_1_shot"] == pytest.approx(5 * rates["b_1_shot"])
    assert "chat_5_shot" not in seqio.TaskRegistry.names()
    with pytest.raises(UserError, match=r"chat_5_shot'; 'chat' has no few-shot prompts, because"):
        resolve("chat_5_shot", "data.eval_mixture")
    assert not any("_shot_1_shot" in name for name in seqio.TaskRegistry.names())
    with pytest.raises(UserError, match="expected text"):
        few_shot.register_shots("chat", 1)
    with pytest.raises(UserError, match="no SeqIO task is called 'nothing'"):
        few_shot.register_shots("nothing", 1)


@pytest.mark.parametrize("seeded", [True, False])
def test_tasks_with_other_sources_and_preprocessors(seeded):
    def plain(split, shuffle_files):
        return tf.data.Dataset.from_tensor_slices({"n": tf.range(6)})

    def with_seed(split, shuffle_files, seed=None):
        return plain(split, shuffle_files)

    def to_text(dataset):
        text = tf.strings.as_string
        return dataset.map(
            lambda row: {"inputs": text(row["n"]), "targets": text(row["n"] + 1)},
        )

    source = seqio.FunctionDataSource(with_seed if seeded else plain, splits=["train"])
    seqio.TaskRegistry.add(
        "next", source=source, preprocessors=[to_text], output_features=TEXT_FEATURES
    )
    twin = seqio.TaskRegistry.get(few_shot.register_shots("next", 2))
    records = list(twin.get_dataset(None, split="train", shuffle=False, seed=0).as_numpy_iterator())
    assert len(records) == 6
    for i, record in enumerate(records):
        *solved, question = record["inputs"].decode().split("\n\n")
        assert question == f"{i}\n" and record["targets"].decode() == str(i + 1)
        assert len(solved) == 2
        for block in solved:
            n, successor = map(int, block.split("\n"))
            assert n != i and successor == n + 1
