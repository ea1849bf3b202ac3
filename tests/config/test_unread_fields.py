"""A field that nothing reads is refused; the code that reads fields is the truth for which."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from ift_jax.config import files
from ift_jax.config.model_shapes import MODEL_SHAPES, set_model_shape
from ift_jax.config.schema import OptimizerConfig
from ift_jax.errors import UserError
from ift_jax.models.rope import frequencies
from ift_jax.training.optimizer import make_learning_rate, make_optimizer

RUN = {"data": {"mixture": "m"}, "tokenizer": {"path": "t.model"}, "train": {"steps": 10}}


def refused(**sections):
    """The message that refuses a run with these fields; "" if they are taken."""
    values = {name: RUN.get(name, {}) | sections.get(name, {}) for name in {**RUN, **sections}}
    try:
        files.from_dict(values)
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return ""


SCHEDULE_FIELDS = {
    "final_ratio": 0.4,
    "decay_steps": 9,
    "decay_ratio": 0.6,
    "decay_shape": "1-sqrt",
    "rsqrt_offset": 3,
    "warmup_ratio": 0.3,
}


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "rsqrt", "wsd"])
@pytest.mark.parametrize("others", [{}, {"warmup_steps": 4}, {"decay_steps": 5}], ids=str)
def test_a_field_is_refused_exactly_if_it_leaves_each_learning_rate_as_it_is(schedule, others):
    def rates(**fields):
        config = OptimizerConfig(learning_rate=1.0, schedule=schedule, **others | fields)
        return make_learning_rate(config, 20)(np.arange(21))

    if "decay_steps" in others and schedule != "wsd":
        assert "config.optimizer.decay_steps: 5, but nothing" in refused(
            optimizer={"schedule": schedule, **others}
        )
        return
    for name, value in SCHEDULE_FIELDS.items():
        is_unread = np.array_equal(rates(), rates(**{name: value}))
        message = refused(optimizer={"schedule": schedule, **others, name: value})
        assert bool(message) == is_unread, name
        assert not message or message.startswith(f"config.optimizer.{name}: {value!r}, but nothing")


@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd", "muon"])
def test_a_field_is_refused_exactly_if_it_leaves_each_update_and_moment_as_it_is(name):
    axes = {"layers": {"w": ("layers", "embed", "mlp")}, "norm": ("norm",)}
    draws = np.random.default_rng(0).normal(size=(3, 60)).astype(np.float32)
    params, grads, later_grads = (
        {"layers": {"w": row[:48].reshape(2, 4, 6)}, "norm": row[48:]} for row in draws
    )

    def updated(**fields):
        optimizer = make_optimizer(OptimizerConfig(name=name, **fields), axes)
        first, state = optimizer.update(grads, optimizer.init(params), params)
        return [first, *optimizer.update(later_grads, state, params)]

    for field, value in {
        "b1": 0.5, "b2": 0.5, "eps": 0.1, "moment_dtype": "bfloat16",
        "decay_norms_and_biases": True,
    }.items():  # fmt: skip
        before, after = jax.tree.leaves(updated()), jax.tree.leaves(updated(**{field: value}))
        is_unread = all(
            old.dtype == new.dtype and np.array_equal(old, new)
            for old, new in zip(before, after, strict=True)
        )
        message = refused(optimizer={"name": name, "learning_rate": 1.0, field: value})
        assert bool(message) == is_unread, field


@pytest.mark.parametrize(
    "scaling", ["none", "linear", "llama3", "yarn", "dynamic", "longrope", "proportional"]
)
def test_fields_of_rope_are_refused_if_they_leave_the_frequencies_as_they_are(scaling):
    shape = {"rope_scaling": scaling, "sliding_window": 8, "rope_original_length": 64}
    if scaling in ("none", "linear", "dynamic", "proportional"):
        del shape["rope_original_length"]
    if scaling not in ("none", "dynamic", "longrope"):
        shape["rope_factor"] = 2.0
    if scaling == "longrope":
        shape |= {"rope_short_factors": (1.0,) * 16, "rope_long_factors": (2.0,) * 16}
    assert not refused(model=shape)

    def angles(**fields):
        model = dataclasses.replace(
            files.from_dict({"model": {}}, trains=False).model, **shape | fields
        )
        return np.concatenate([frequencies(model, local=local) for local in (True, False)])

    for field, value in {
        "rope_proportion": 0.5, "rope_beta_fast": 3.0, "rope_beta_slow": 0.1,
        "rope_truncate": False, "rope_low_freq_factor": 2.0, "rope_high_freq_factor": 9.0,
    }.items():  # fmt: skip
        is_unread = np.array_equal(angles(), angles(**{field: value}))
        assert bool(refused(model=shape | {field: value})) == is_unread, field


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"optimizer": {"schedule": "constant", "final_ratio": 0.1}},
            "config.optimizer.final_ratio: 0.1, but nothing reads it with optimizer.schedule "
            "'constant'; expected optimizer.schedule 'linear', 'cosine' or 'wsd', or the default "
            "0.0",
        ),
        (
            {"train": {"best_metric": "heldout_loss"}},
            "config.train.best_metric: 'heldout_loss', but nothing reads it with train.keep_best 0 "
            "and train.early_stopping_patience 0; expected train.keep_best above 0, "
            "train.early_stopping_patience above 0, or the default 'eval_loss'",
        ),
        (
            {"model": {"architecture": "encoder_decoder"}, "data": {"max_length": 64}},
            "config.data.max_length: 64, but nothing reads it with model.architecture "
            "'encoder_decoder'; expected model.architecture 'decoder' (an encoder-decoder has "
            "data.inputs_length and data.targets_length), or the default 2048",
        ),
        ({"loss": {"constant": 9.0}}, "config.loss.constant: 9.0, but"),
        ({"train": {"eval_metrics_examples": 9}}, "config.train.eval_metrics_examples: 9, but"),
        ({"evaluation": {"length_penalty": 0.6}}, "with evaluation.num_beams 1; expected"),
        ({"evaluation": {"beam_rules": "t5x"}}, "config.evaluation.beam_rules: 't5x', but"),
        ({"data": {"licenses": ["mit"]}}, "with data.filters (); expected data.filters with"),
        ({"data": {"heldout_split": "dev"}}, "with data.heldout_mixture ''; expected"),
        ({"format": {"input_eos": False}}, "config.format.input_eos: False, but"),
        ({"model": {"dropout_schedule": "linear"}}, "with model.dropout 0.0; expected"),
        ({"model": {"normalize_expert_weights": True}}, "with model.n_experts 0; expected"),
        ({"model": {"global_every": 2}}, "with model.sliding_window 0; expected"),
        ({"model": {"linear_conv": 2}}, "expected model.linear_layers with a layer 'L'"),
    ],
)  # fmt: skip
def test_the_line_names_the_field_its_value_and_what_would_read_it(sections, message):
    assert message in refused(**sections)


def test_what_is_read_is_taken():
    for sections in (
        {"optimizer": {"name": "sgd", "b1": 0.5, "learning_rate": 1.0}},
        {"optimizer": {"weight_decay": 0.1, "decay_norms_and_biases": True}},
        {"loss": {"normalization": "constant", "constant": 9.0}},
        {"train": {"best_metric": "heldout_loss", "early_stopping_patience": 2}},
        {"evaluation": {"num_beams": 2, "beam_rules": "t5x"}},
        {"data": {"filters": ["license"], "licenses": ["mit"]}},
        {"model": {"rope_original_length": 64, "query_beta": 0.1}},
        {"model": {"architecture": "encoder_decoder"}, "format": {"input_eos": False}},
        {"model": {"dropout": 0.1, "dropout_schedule": "linear"}},
        # A released model decides its shape, with all numbers that it names.
        {"model": {"init_from": "/models/base", "rope_beta_fast": 3.0}},
    ):
        assert not refused(**sections)


@pytest.mark.parametrize("name", MODEL_SHAPES)
def test_every_number_of_a_published_shape_is_read(name):
    config = files.default_config(MODEL_SHAPES[name]["architecture"])
    set_model_shape(config, name)
    values = config.to_dict()
    for section, fields in RUN.items():
        values[section] |= fields
    assert files.from_dict(values).model.architecture == MODEL_SHAPES[name]["architecture"]


def test_an_override_takes_what_belonged_to_the_choice_that_it_replaces():
    def load(*overrides):
        return files.load("configs/lima.py", [f"--config.{item}" for item in overrides])

    assert (load().optimizer.schedule, load().optimizer.final_ratio) == ("linear", 0.1)
    config = load("optimizer.schedule=constant")
    assert config.optimizer.final_ratio == 0.0
    assert json.loads(files.to_json(config)) == json.loads(
        files.to_json(load("optimizer.schedule=constant", "optimizer.final_ratio=0"))
    )
    with pytest.raises(UserError, match="config.optimizer.final_ratio: 0.2, but nothing reads it"):
        load("optimizer.schedule=constant", "optimizer.final_ratio=0.2")
    # The quickstart's recipe warms up for a number of steps.
    with pytest.raises(UserError, match="with optimizer.warmup_steps 60; expected optim"):
        files.load("configs/quickstart.py", ["--config.optimizer.warmup_ratio=0.1"])
    kept = files.load("configs/quickstart.py", ["--config.train.eval_metrics_every=0"])
    assert kept.train.eval_metrics_examples == 32


def test_a_stage_replaces_a_choice_of_the_rest_of_its_file_as_an_override_does(tmp_path):
    path = tmp_path / "run.yaml"
    common = "data: {mixture: m}\ntokenizer: {path: t.model}\ntrain: {steps: 9}\n"
    common += "optimizer: {final_ratio: 0.1}\nstages:\n- {name: a, optimizer: {%s}}\n"
    path.write_text(common % "schedule: constant", encoding="utf-8")
    [stage] = files.load_stages(str(path))
    assert stage.config.optimizer.final_ratio == 0.0
    path.write_text(common % "schedule: constant, final_ratio: 0.2", encoding="utf-8")
    with pytest.raises(UserError, match=r"run.yaml:6: config.stages.a.optimizer.final_ratio: 0.2"):
        files.load_stages(str(path))
    path.write_text(common % "name: adamw", encoding="utf-8")
    [stage] = files.load_stages(str(path), ["--config.stages.a.optimizer.schedule=rsqrt"])
    assert stage.config.optimizer.final_ratio == 0.0
