"""A run knows what it reads by content: each change is found, and named with its cause."""

import copy
import dataclasses

import numpy as np
import pytest

from ift_jax.checkpoint.run_inputs import changed_data, changed_tokenizer, run_inputs
from ift_jax.config.schema import FormatConfig
from tests.data.made_stores import example, make_mixture, make_store
from tests.small_models import CONFIG
from tests.text.small_tokenizers import sentencepiece_tokenizer


@pytest.fixture(scope="module")
def mixture(tmp_path_factory):
    return make_mixture(tmp_path_factory.mktemp("stores"), [5, 6], [1.0, 2.0])


def inputs(mixture, config=CONFIG, which="train"):
    return run_inputs(config, sentencepiece_tokenizer(), {which: mixture})


def with_key(inputs, **parts):
    changed = copy.deepcopy(inputs)
    changed["mixtures"]["train"]["task0"]["content"] = "another"
    changed["mixtures"]["train"]["task0"]["made_from"] |= parts
    return changed


def test_the_same_inputs_have_no_changes(mixture):
    before = inputs(mixture)
    assert list(changed_data(before, inputs(mixture))) == []
    assert changed_tokenizer(before, inputs(mixture)) == ""


def test_the_name_of_a_store_does_not_count_but_each_of_its_bytes_does(tmp_path, mixture):
    rows = [[example(n) for n in (3, 4, 5)]]
    others = [[example(n) for n in (3, 4, 6)]]
    stores = [make_store(tmp_path / name, name, rows) for name in ("a", "b")]
    stores.append(make_store(tmp_path / "c", "c", others))
    of_stores = [
        inputs(
            dataclasses.replace(
                mixture, tasks=["t"], rates=np.ones(1), stores=[store], metric_fns=[[]]
            )
        )
        for store in stores
    ]
    assert of_stores[0] == of_stores[1]
    (change,) = changed_data(of_stores[0], of_stores[2])
    assert change.startswith("task 't' of the train mixture had 3 examples (fingerprint ")


def test_what_is_trained_is_named_before_what_is_evaluated(mixture):
    """A workdir has the mixtures in the order of their names, of which "eval" is the first."""
    train = inputs(mixture)["mixtures"]["train"]
    before = inputs(mixture) | {"mixtures": {"eval": copy.deepcopy(train), "train": train}}
    now = copy.deepcopy(before)
    now["mixtures"]["eval"]["task0"]["rate"] += 1
    now["mixtures"]["train"]["task0"]["content"] = "another"
    first, second = changed_data(before, now)
    assert first.startswith("task 'task0' of the train mixture had")
    assert second.startswith("task 'task0' of the eval mixture had the rate")


@pytest.mark.parametrize(
    ("part", "cause"),
    [
        ("source", "its source holds other data"),
        ("task_modules", "the code of its task has changed"),
        ("formatter", "template, tokenizer or lengths have changed"),
        ("our_code", "another version of ift_jax prepared it"),
        (None, "the same source and code gave other examples"),
    ],
)
def test_the_cause_of_a_change_is_named(mixture, part, cause):
    before = inputs(mixture)
    (change,) = changed_data(before, with_key(before, **{part: "x"} if part else {}))
    assert change.endswith(f"now 5 (another): {cause}")


def test_tasks_that_come_go_or_have_another_rate_are_named(mixture):
    before = inputs(mixture)
    fewer = dataclasses.replace(
        mixture, tasks=mixture.tasks[:1], rates=mixture.rates[:1], stores=mixture.stores[:1]
    )
    assert list(changed_data(before, inputs(fewer))) == [
        "task 'task1' is gone from the train mixture"
    ]
    assert list(changed_data(inputs(fewer), before)) == ["task 'task1' is new in the train mixture"]
    other_rates = dataclasses.replace(mixture, rates=np.array([1.0, 3.0]))
    (change,) = changed_data(before, inputs(other_rates))
    assert change == "task 'task1' of the train mixture had the rate 2, now 3"
    turned = dataclasses.replace(
        mixture, tasks=mixture.tasks[::-1], rates=mixture.rates[::-1], stores=mixture.stores[::-1]
    )
    (change,) = changed_data(before, inputs(turned))
    assert change == "the tasks of the train mixture have another order"


def test_template_and_tokenizer_are_compared_by_content(mixture, tmp_path):
    before = inputs(mixture)
    file = tmp_path / "copy.jinja"
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    file.write_text(template)
    by_name = [
        inputs(mixture, dataclasses.replace(CONFIG, format=FormatConfig(template=name)))
        for name in (str(file), template)
    ]
    assert list(changed_data(*by_name)) == []
    (change,) = changed_data(before, by_name[0])
    assert change.startswith("the template has changed: 'chatml' (fingerprint ")
    other = copy.deepcopy(before)
    other["tokenizer"]["fingerprint"] = "another"
    assert changed_tokenizer(before, other).startswith("the tokenizer has changed: 480 tokens (")
