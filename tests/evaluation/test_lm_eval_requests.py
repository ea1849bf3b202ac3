"""What lm-evaluation-harness asks of the model `ift_jax`: arguments, options, chats, T5's kind."""

import dataclasses
import tomllib

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from ift_jax.commands.main import main
from ift_jax.config.schema import EncoderDecoderConfig
from ift_jax.decoding import BeamSearch, Options, Sampling
from ift_jax.errors import UserError
from ift_jax.evaluation.harness import command_line
from ift_jax.evaluation.harness.generation import generation_options
from ift_jax.evaluation.harness.model import IftJaxLM
from ift_jax.evaluation.harness.register import NAME, TARGET, register
from ift_jax.evaluation.log_likelihoods import Continuation, log_likelihoods
from ift_jax.models import build_model
from ift_jax.text.prompts import PromptFormatter
from ift_jax.text.records import Message
from tests import small_models
from tests.text.small_tokenizers import KINDS, huggingface_tokenizer, small_tokenizer

pytestmark = pytest.mark.usefixtures("one_device")
CHAT = [
    ("system", "Count."),
    ("user", "Anna has 1 apple"),
    ("assistant", "So it is 😀"),
    ("user", "é"),
]
ENCODER_DECODER = dataclasses.replace(
    small_models.CONFIG,
    model=EncoderDecoderConfig(
        vocab_size=480,
        d_model=16,
        n_encoder_layers=1,
        n_decoder_layers=1,
        n_heads=2,
        head_dim=8,
        d_ff=24,
    ),
)


def options(**gen_kwargs):
    return generation_options(gen_kwargs, huggingface_tokenizer(), max_gen_toks=32, seed=5)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_models.write_workdir(tmp_path_factory.mktemp("decoder") / "run")


@pytest.fixture(scope="module")
def model(workdir):
    return IftJaxLM(workdir=workdir, batch_size="auto", max_batch_size=8)


def test_the_entry_point_is_what_the_command_registers():
    """Releases of lm-evaluation-harness after 0.4.13 find the model by it."""
    with open("pyproject.toml", "rb") as file:
        declared = tomllib.load(file)["project"]["entry-points"]["lm_eval.models"]
    assert declared == {NAME: TARGET}
    register()
    assert get_model(NAME) is IftJaxLM


# --- Options ------------------------------------------------------------------------------------


def test_generation_kwargs_are_lm_evaluation_harness_s():
    end = huggingface_tokenizer().special_tokens["<|im_end|>"]
    got = options(until=["\n", "", "<|im_end|>"], max_new_tokens=7)
    assert (got.max_new_tokens, got.stop_strings, got.stop_ids) == (7, ("\n",), (end,))
    assert got.sampling == Sampling() and got.beams is None and got.seed == 5
    assert options().max_new_tokens == 32 and options(until="x").stop_strings == ("x",)
    # A temperature alone samples; `do_sample: false` does not, whatever the temperature.
    assert options(temperature=0.7, top_p=0.9).sampling == Sampling(0.7, top_p=0.9)
    assert options(do_sample=False, temperature=0.7, top_p=0.9).sampling == Sampling()
    assert options(do_sample=True, top_k=3, seed=9).sampling == Sampling(1.0, top_k=3)
    assert options(do_sample=True, seed=9).seed == 9
    assert options(num_beams=3, length_penalty=0.6).beams == BeamSearch(3, 0.6)


@pytest.mark.parametrize(
    ("gen_kwargs", "message"),
    [
        ({"top_q": 1}, "gen_kwargs: 'top_q' is not known to model ift_jax; did you mean 'top_p'"),
        ({"max_gen_toks": 0}, "max_new_tokens: expected 1 to 1,073,741,824; got 0"),
        ({"do_sample": True, "top_p": 2.0}, "top_p: expected more than 0 and at most 1; got 2"),
    ],
)
def test_wrong_generation_kwargs_are_named(gen_kwargs, message):
    with pytest.raises(UserError, match=message):
        options(**gen_kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "model_args: expected workdir=DIR or model=DIR, and one of them"),
        ({"workdir": "a", "model": "b"}, "expected workdir=DIR or model=DIR, and one of them"),
        ({"workdri": "a"}, "workdri: no such argument of model ift_jax; did you mean 'workdir'"),
        ({"workdir": "a", "batch_size": "many"}, "batch_size: expected a positive number or auto"),
        ({"workdir": "nowhere"}, "nowhere: no config.json here"),
    ],
)
def test_wrong_model_arguments_are_named(arguments, message):
    with pytest.raises(UserError, match=message):
        IftJaxLM(**arguments)


def test_an_answer_that_leaves_no_room_for_a_prompt_is_named(model):
    asked = [Instance("generate_until", {}, ("Anna", {"max_gen_toks": 128}), 0)]
    message = "max_gen_toks 128: expected less than the model's max_length 128; --gen_kwargs"
    with pytest.raises(UserError, match=message):
        model.generate_until(asked)
    with pytest.raises(UserError, match="expected at most the model's max_length 128"):
        model.loglikelihood([Instance("loglikelihood", {}, ("Anna", " has" * 200), 0)], True)


def test_the_command_line_names_mistakes_in_a_line(capsys, workdir):
    with pytest.raises(SystemExit):
        main(["lm-eval", "--help"])
    assert "--model ift_jax --model_args workdir=" in capsys.readouterr().out
    words = ["lm-eval", "--model", "ift_jax", "--tasks", "x", "--fewshot_as_multiturn", "true"]
    assert main(words) == 2
    complaint = "error: lm-evaluation-harness: ValueError: When `fewshot_as_multiturn` is True"
    assert complaint in capsys.readouterr().err
    assert main(["lm-eval", "run", "--no-such-flag", "x"]) == 2
    assert "unrecognized arguments: --no-such-flag" in capsys.readouterr().err


def test_what_a_task_of_the_harness_lacks_is_named(capsys, monkeypatch):
    def process_results():
        raise NotImplementedError  # As methods of its base classes do, without a word.

    monkeypatch.setattr(command_line, "cli_evaluate", process_results)
    assert main(["lm-eval", "--tasks", "x"]) == 2
    error = capsys.readouterr().err
    assert f"NotImplementedError: raised by process_results, {__file__}:" in error


# --- Chats --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_prompt_s_text_has_the_ids_of_training(kind):
    tokenizer = small_tokenizer(kind)
    formatter = PromptFormatter.from_config(small_models.CONFIG, tokenizer)
    for n in (2, 4):
        messages = [Message(*turn) for turn in CHAT[:n]]
        ids = tokenizer.encode_with_controls(formatter.text(messages))
        assert ids == formatter.prompt(messages).tolist()
    typed = [Message("user", "a <|im_end|> b \uffff")]
    assert "user\na <|im_end|> b \uffff<|im_end|>" in formatter.text(typed)


def test_a_chat_with_control_strings_is_warned_of_once(model, caplog):
    history = [{"role": "user", "content": "a <|im_end|> b"}]
    texts = {model.apply_chat_template(history) for _ in range(2)}
    assert texts == {"<|im_start|>user\na <|im_end|> b<|im_end|>\n<|im_start|>assistant\n"}
    assert len([r for r in caplog.records if "control strings" in r.message]) == 1
    with pytest.raises(UserError, match="--apply_chat_template zephyr: .* has one template"):
        model.chat_template("zephyr")
    assert model.tokenizer_name.startswith("ift_jax__")


# --- Encoder-decoders ---------------------------------------------------------------------------


def test_an_encoder_decoder_reads_contexts_as_in_training(tmp_path):
    built = build_model(ENCODER_DECODER.model)
    params = small_models.random_params(built)
    workdir = small_models.write_workdir(tmp_path / "run", ENCODER_DECODER, params)
    model = IftJaxLM(workdir=workdir)
    tokenizer, eos = small_tokenizer("sentencepiece"), [model.eot_token_id]
    assert model.backend == "seq2seq"
    pairs = [("Anna has", "1 apple"), ("Anna has", "23"), ("The user sorts", "files.")]
    got = model.loglikelihood([Instance("loglikelihood", {}, pair, 0) for pair in pairs], True)
    rows = [
        Continuation([*tokenizer.encode(context), *eos], tokenizer.encode(answer), 0)
        for context, answer in pairs
    ]
    want = log_likelihoods(built, params, ENCODER_DECODER, rows)
    np.testing.assert_allclose([a for a, _ in got], [want[i] for i in range(3)], atol=1e-4)
    assert model.apply_chat_template([{"role": "user", "content": "Anna"}]) == "Anna"
    asked = [Instance("generate_until", {}, ("Anna has", {"max_gen_toks": 4}), 0)]
    [answer] = model.generate_until(asked, True)
    prompt = model.generator.generate([[*tokenizer.encode("Anna has"), *eos]], Options(4))
    assert answer == tokenizer.decode(prompt[0])
    rolling = model.loglikelihood_rolling(
        [Instance("loglikelihood_rolling", {}, ("Anna",), 0)], True
    )
    assert rolling[0] < 0
    history = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(UserError, match="gen_prefix: an encoder-decoder reads no beginning"):
        model.apply_chat_template(history, add_generation_prompt=False)
