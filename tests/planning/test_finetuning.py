"""What is chosen for a finetuning run: each rule against a value computed by hand."""

import dataclasses

import numpy as np
import pytest

from ift_jax.config.schema import (
    Config,
    DecoderConfig,
    EncoderDecoderConfig,
    LoraConfig,
    OptimizerConfig,
    PreferenceConfig,
)
from ift_jax.planning.finetuning import Facts, choose, choose_format

GIB = 2**30
FACTS = Facts(
    model=DecoderConfig(d_model=2000, n_layers=16, n_heads=16, head_dim=128, d_ff=8000),
    family="llama",
    n_params=10**9,
    encoder_lengths=np.zeros(1000, np.int64),
    decoder_lengths=np.full(1000, 240, np.int64),
    n_examples=10_000,
    has_eval_split=True,
    platform="gpu",
    n_devices=1,
    device_bytes=80 * GIB,
)
FULL = Config()
LORA = Config(lora=LoraConfig(rank=8))


def chosen(facts=FACTS, config=FULL, given=()):
    return {choice.field: choice.value for choice in choose(facts, config, given)}


def test_rows_keep_99_percent_and_have_room_for_four_examples():
    assert chosen()["data.max_length"] == 1024  # 4 * 240 = 960.
    lengths = np.full(1000, 240, np.int64)
    lengths[:15] = 3000  # 1.5% would be lost by a shorter row.
    longer = dataclasses.replace(FACTS, decoder_lengths=lengths)
    assert chosen(longer)["data.max_length"] == 4096
    lengths[5:15] = 240  # Only 0.5%.
    assert chosen(dataclasses.replace(FACTS, decoder_lengths=lengths))["data.max_length"] == 1024


def test_without_rows_to_hold_out_trained_ones_are_evaluated_and_no_checkpoint_is_the_best():
    held_out = chosen()
    few = chosen(dataclasses.replace(FACTS, has_eval_split=False))
    assert few.pop("data.eval_split") == "train"
    assert "data.eval_split" not in held_out
    assert held_out.pop("train.keep_best") == 1
    assert few == held_out


def test_rows_are_no_longer_than_the_model_s_positions_and_say_so():
    model = dataclasses.replace(FACTS.model, max_length=512)
    facts = dataclasses.replace(
        FACTS, model=model, decoder_lengths=np.array([100] * 9 + [900], np.int64)
    )
    (choice,) = [c for c in choose(facts, Config(), ()) if c.field == "data.max_length"]
    assert choice.value == 512
    assert choice.reason == (
        "keeps 90.0% of the examples; the longest has 900 tokens; the model has no more positions"
    )


def test_epochs_follow_from_the_number_of_examples():
    for n_examples, epochs in ((500, 3.0), (20_000, 3.0), (20_001, 2.0), (10**6, 1.0)):
        facts = dataclasses.replace(FACTS, n_examples=n_examples)
        assert chosen(facts)["train.epochs"] == epochs


def test_a_batch_has_enough_rows_for_about_150_steps():
    # 10,000 examples * 3 epochs / 150 steps = 200, at most 64; 0.95 * 1024 / 240 = 4.05 a row.
    assert chosen()["train.batch_size"] == 16
    few = dataclasses.replace(FACTS, n_examples=300)  # 300 * 3 / 150 = 6: 8 examples.
    assert chosen(few)["train.batch_size"] == 2
    assert chosen(dataclasses.replace(few, n_devices=8))["train.batch_size"] == 8


@pytest.mark.parametrize(
    ("family", "config", "rate"),
    [
        # 5e-5, times 10 for LoRA, times (2000 / width) ** 0.781 for Llama, ** 0.0775 for Qwen.
        ("llama", Config(), 5e-5 * (2000 / 576) ** 0.781),
        ("llama", LORA, 5e-4 * (2000 / 576) ** 0.781),
        ("qwen3", Config(), 5e-5 * (2000 / 576) ** 0.0775),
        ("qwen2", LORA, 5e-4 * (2000 / 576) ** 0.0775),
        ("", Config(), 5e-5 * (2000 / 576) ** 0.781),
    ],
)
def test_the_learning_rate_follows_the_published_rule(family, config, rate):
    model = dataclasses.replace(FACTS.model, d_model=576)
    facts = dataclasses.replace(FACTS, model=model, family=family)
    assert chosen(facts, config)["optimizer.learning_rate"] == pytest.approx(rate, rel=0.05)


def test_nothing_is_chosen_that_the_given_fields_leave_unread():
    def of_optimizer(**fields):
        config = dataclasses.replace(FULL, optimizer=OptimizerConfig(**fields))
        given = {f"optimizer.{name}" for name in fields}
        return {c.field: c[1:] for c in choose(FACTS, config, given)}

    assert "optimizer.final_ratio" not in of_optimizer(schedule="constant")
    assert "optimizer.final_ratio" not in of_optimizer(schedule="rsqrt")
    linear = of_optimizer(schedule="linear")["optimizer.final_ratio"]
    assert linear == (0.1, "linear down to a tenth")
    assert of_optimizer()["optimizer.final_ratio"] == (0.1, "cosine down to a tenth")
    assert "optimizer.warmup_ratio" in of_optimizer()
    assert "optimizer.warmup_ratio" not in of_optimizer(warmup_steps=20)


def test_an_encoder_decoder_is_finetuned_as_t5_is():
    facts = dataclasses.replace(
        FACTS,
        model=EncoderDecoderConfig(),
        encoder_lengths=np.full(100, 100, np.int64),
        decoder_lengths=np.full(100, 20, np.int64),
    )
    values = chosen(facts)
    assert values["optimizer.name"] == "adafactor"
    assert values["optimizer.learning_rate"] == 1e-3
    assert values["optimizer.schedule"] == "constant"
    assert values["data.inputs_length"] == 512
    assert values["data.targets_length"] == 128
    assert "data.max_length" not in values
    gemma = EncoderDecoderConfig(block="gemma", d_model=2000, max_length=64)
    values = chosen(dataclasses.replace(facts, model=gemma))
    assert "optimizer.name" not in values and values["optimizer.learning_rate"] == 5e-5
    assert values["data.inputs_length"] == values["data.targets_length"] == 64
    assert ("format.input_eos", False) in [
        choice[:2] for choice in choose_format(gemma, False, Config(), ())
    ]


def test_types_and_remat_follow_from_the_platform():
    assert chosen()["model.dtype"] == "bfloat16"
    assert chosen()["model.remat"] == "none"
    cpu = chosen(dataclasses.replace(FACTS, platform="cpu"))
    # What "auto" chooses in a run whose config says nothing; see `remat.chosen_policy`.
    assert (cpu["model.dtype"], cpu["model.remat"]) == ("float32", "minimal")


def test_less_memory_means_more_remat_then_slices_then_sharding():
    # The state of 1e9 parameters takes 16e9 bytes = 14.9 GiB.
    room = {
        "none": 6 * (2000 + 16 * 128) + 3 * 8000,
        "full": 2000,
    }
    row = {name: 16 * 2 * width * 1024 for name, width in room.items()}  # bfloat16.
    some = dataclasses.replace(FACTS, device_bytes=int((16e9 + row["full"] * 2.5) / 0.8))
    values = chosen(some)
    assert values["model.remat"] == "full"
    assert values["train.gradient_accumulation_steps"] == 8  # 2 of 16 rows at a time.
    assert "train.gradient_accumulation_steps" not in chosen()
    sharded = chosen(dataclasses.replace(FACTS, device_bytes=16 * GIB, n_devices=8))
    assert (sharded["mesh.data"], sharded["mesh.fsdp"]) == (1, -1)
    assert "mesh.fsdp" not in chosen(dataclasses.replace(FACTS, n_devices=8))


def test_a_quantized_base_leaves_room_and_answers_only_where_its_numbers_fit():
    # 1e9 weights of 4.5 bits take 0.52 GiB; the same in bfloat16 for previews, 1.86 GiB.
    quantized = Config(lora=LoraConfig(rank=8, quantize="nf4"))
    small = dataclasses.replace(FACTS, device_bytes=2 * GIB, n_devices=8)
    assert "mesh.fsdp" not in chosen(small, quantized)
    assert "mesh.fsdp" in chosen(small, LORA)
    assert "train.preview_prompts" not in chosen(small, quantized)  # Over all 8 devices.
    one = dataclasses.replace(small, n_devices=1)
    assert chosen(one, quantized)["train.preview_prompts"] == 0
    assert "train.preview_prompts" not in chosen(one, LORA)


def test_a_run_evaluates_ten_times_and_saves_five_times():
    values = chosen()
    n_steps = 10_000 * 3 / (16 * 0.95 * 1024 / 240)
    assert values["train.eval_every"] == pytest.approx(n_steps / 10, abs=1)
    assert values["train.save_every"] == 2 * values["train.eval_every"]
    tiny = chosen(dataclasses.replace(FACTS, n_examples=4))
    assert tiny["train.eval_every"] == tiny["train.save_every"] == tiny["train.log_every"] == 1


@pytest.mark.parametrize(("n_steps", "evals", "saves"), [(1, 1, 1), (4, 4, 4), (100, 10, 5)])
def test_the_reasons_say_how_often_a_run_really_evaluates_and_saves(n_steps, evals, saves):
    train = dataclasses.replace(Config().train, steps=n_steps)
    config = dataclasses.replace(Config(), train=train)
    reasons = {each.field: each.reason for each in choose(FACTS, config, {"train.steps"})}
    plural = "s" if n_steps > 1 else ""
    assert reasons["train.eval_every"] == f"the held-out loss, about {evals} time{plural} a run"
    assert reasons["train.save_every"] == f"a checkpoint about {saves} time{plural} a run"


def test_what_is_given_is_not_chosen_and_decides_the_rest():
    given = {"data.max_length": 2048, "train.epochs": 1.0}
    config = Config()
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, max_length=2048),
        train=dataclasses.replace(config.train, epochs=1.0),
    )
    values = chosen(config=config, given=given)
    assert not set(given) & set(values)
    assert values["train.batch_size"] == 8  # 0.95 * 2048 / 240 = 8.1 examples a row.


def test_given_steps_are_the_length_of_the_run_and_no_epochs_are_chosen_beside_them():
    train = dataclasses.replace(Config().train, steps=40)
    values = chosen(config=dataclasses.replace(Config(), train=train), given={"train.steps"})
    assert "train.epochs" not in values
    assert values["train.batch_size"] == chosen()["train.batch_size"]
    assert (values["train.eval_every"], values["train.save_every"]) == (4, 8)


def test_steps_of_0_leave_the_epochs_to_be_chosen():
    assert chosen(given={"train.steps"}) == chosen()


def test_the_template_is_the_model_s_or_chatml():
    model = DecoderConfig()
    assert [c[:2] for c in choose_format(model, True, Config(), ())] == [
        ("format.template", "model")
    ]
    assert [c[:2] for c in choose_format(model, False, Config(), ())] == [
        ("format.template", "chatml"),
        ("tokenizer.added_tokens", ("<|im_start|>", "<|im_end|>")),
    ]
    assert [c[:2] for c in choose_format(EncoderDecoderConfig(), False, Config(), ())] == [
        ("format.template", "plain")
    ]
    assert (
        choose_format(model, False, Config(), {"format.template", "tokenizer.added_tokens"}) == []
    )


def test_pairs_take_the_small_rates_that_are_usual_for_them():
    pairs = dataclasses.replace(FULL, preference=PreferenceConfig("sigmoid"))
    with_lora = dataclasses.replace(pairs, lora=LORA.lora)
    for config, rate in ((pairs, 1e-6), (with_lora, 1e-5)):
        found = chosen(config=config)
        assert found["optimizer.learning_rate"] == rate
        assert found["optimizer.warmup_ratio"] == 0.1 and "optimizer.final_ratio" not in found
