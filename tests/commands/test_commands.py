"""The commands as a user types them: help, mistakes, and a whole small run."""

import gc
import json
import os
import subprocess
import sys

import pytest

from ift_jax.commands import main
from tests.training import runs

IFT = [sys.executable, "-m", "ift_jax.commands.main"]


def ift(*arguments):
    return subprocess.run(
        [*IFT, *map(str, arguments)], capture_output=True, text=True, cwd=runs.REPO, timeout=240
    )


@pytest.mark.parametrize(
    "command", ["", "prepare", "train", "generate", "chat", "eval", "inspect", "serve"]
)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        main.main([*([command] if command else []), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "example" in shown and f"ift {command or 'train'} --" in shown


def test_a_command_looks_for_garbage_seldom():
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        with pytest.raises(SystemExit):
            main.main(["train", "--help"])
        assert gc.get_threshold()[0] >= 10_000
    finally:
        gc.set_threshold(*before)


def test_the_fields_of_a_config_are_printed_without_other_flags():
    result = ift("train", "--help-config")
    assert result.returncode == 0, result.stderr
    assert "train.steps: int = 0" in result.stdout
    assert "(one of constant, linear, cosine, rsqrt, wsd)" in result.stdout


def test_a_reader_that_closes_the_pipe_gets_no_traceback():
    command = [*IFT, "train", "--help-config"]
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, cwd=runs.REPO)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--config", "none.py", "--workdir", "x"], "no such file: none.py"),
        (
            ["train", "--config", "configs/quickstart.py", "--workdir", "x", "--dryrun"],
            "--dryrun: no such argument; did you mean '--dry-run'?",
        ),
        (["prepare", "--config", "configs/quickstart.py", "--", "-x"], "--: no such argument"),
        (
            ["inspect", "--config", "configs/quickstart.py", "--config.data.max_lengt=3"],
            "did you mean 'max_length'",
        ),
        (
            ["generate", "--workdir", "none", "--prompt", "x"],
            "expected a run's workdir or a Hugging Face",
        ),
        (
            ["generate", "--workdir", "none", "--prompt", "x", "--top-p", "2"],
            "top_p: expected more than 0 and at most 1; got 2",
        ),
        (["trian", "--config", "x"], "trian: no such command; did you mean 'train'?"),
        ([], "COMMAND; see ift --help"),
        (["train", "--workdir", "x"], "x is not the workdir of a run yet: expected --config FILE"),
        (
            ["train", "--config", "configs/quickstart.py", "--workdir", "x"]
            + ["--config.train.steps", "3"],
            "--config.train.steps: expected an equals sign: --config.train.steps=3",
        ),
        (
            ["inspect", "--config", "configs/quickstart.py", "--confg=a b"],
            "--confg=a b: no such argument; did you mean '--config'?",
        ),
        (
            ["inspect", "--config", "configs/quickstart.py"]
            + ["--config.tokenizer.added_tokens=('<|im_start|>', 1)"],
            "config.tokenizer.added_tokens: expected a tuple of texts",
        ),
        (
            ["generate", "--workdir", "none", "--prompt", "x", "--top-k", "x"],
            "--top-k: expected a whole number, 0 or more; got 'x'",
        ),
        (
            ["generate", "--workdir", "none", "--prompt", "x", "--max-new-tokens", "0"],
            "--max-new-tokens: expected a whole number, 1 or more; got '0'",
        ),
        (
            ["generate", "--workdir", "none", "--prompt", "x", "--temperature", "nan"],
            "--temperature: expected a number; got 'nan'",
        ),
        (
            ["plan", "--config", "configs/quickstart.py", "--topology", "v4", "--slices", "0"],
            "--slices: expected a whole number, 1 or more; got '0'",
        ),
        (["chat", "--workdir", "none", "--stop", ""], "--stop: expected a text"),
        (
            ["generate", "--workdir", "none", "--prompt", "x", "--config.foo.bar=3"],
            "--config.foo.bar=3: no such argument",
        ),
        (
            ["eval", "--config", "configs/quickstart.py", "--workdir", "none"]
            + ["--config.evaluation.examples=0"],
            "config.evaluation.examples: expected at least 1",
        ),
        (
            ["train", "--config", "configs/quickstart.py", "--workdir", "x"]
            + ["--config.train.num_train_epochs=3"],
            "--config.train.num_train_epochs: no such field; Hugging Face's num_train_epochs is "
            "train.epochs here",
        ),
    ],
)
def test_mistakes_end_in_one_line_and_status_2(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ")
    assert len(error.splitlines()) == 1


GENERATE = ["generate", "--workdir", "none", "--prompt", "x"]
EVAL = ["eval", "--workdir", "none"]
REJECTION = ["synthesize", "rejection", "--model", "x", "--prompts", "x", "--output", "none"]
EXPORT = ["export", "--workdir", "none", "--output", "none", "--adapter"]
MAGPIE = ["synthesize", "magpie", "--output", "none", "--target", "1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*GENERATE, "--top-p", "0.9"], "top_p: 0.9 needs a temperature above 0"),
        ([*GENERATE, "--top-k", "5"], "top_k: 5 needs a temperature above 0"),
        ([*EVAL, "--shots", "2"], "--shots 2: expected --untuned DIR"),
        ([*EVAL, "--stage", "sft"], "--stage sft: expected --config FILE with stages"),
        ([*EVAL, "--benchmarks", "gsm8k", "--all"], "--all: is not for --benchmarks"),
        ([*EXPORT, "--dtype", "float16"], "--dtype float16: is for weights; --adapter writes none"),
        ([*EXPORT, "--shard-size", "1"], "--shard-size 1.0: is for weights; --adapter writes none"),
        (["inspect", "--html", "x"], "--html: has no use without a mixture"),
        (["inspect", "gsm8k", "--lint", "--html", "x"], "--html: has no use beside --lint"),
        (["inspect", "gsm8k", "--lint", "--examples", "0"], "--examples: has no use beside --lint"),
        (["inspect", "gsm8k", "--lora", "4"], "--lora: expected --model DIR with --data FILES"),
        (["inspect", "gsm8k", "--stage", "sft"], "--stage sft: expected --config FILE"),
        (
            ["prepare", "--model", "x", "--data", "x", "--stage", "sft"],
            "--stage sft: expected --config FILE",
        ),
        (
            [*MAGPIE, "--endpoint", "http://x", "--endpoint-model", "x", "--header", "x"]
            + ["--batch-size", "4"],
            "--batch-size: belongs to --model, not to --endpoint",
        ),
        (
            [*REJECTION, "--reward", "number", "--judge-answer", "Yes"],
            "--judge-answer: expected --judge DIR",
        ),
        (
            [*REJECTION, "--judge", "x", "--reward-timeout", "3"],
            "--reward-timeout: expected --reward NAME",
        ),
        ([*MAGPIE, "--model", "x", "--concurrency", "2"], "--concurrency: expected --endpoint URL"),
    ],
)
def test_a_flag_that_nothing_would_read_is_refused(arguments, message, capsys):
    assert main.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_traceback_of_a_mistake_is_printed_with_debug(capsys):
    arguments = ["train", "--config", "none.py", "--workdir", "x"]
    for words in (["--debug", *arguments], [*arguments, "--debug"]):
        assert main.main(words) == 2
        error = capsys.readouterr().err
        assert error.startswith("Traceback") and "no such file" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyError("x"), 1, "this is a fault of ift_jax rather than yours: please report it"),
        (MemoryError(), 2, "out of memory: the host has no more; smaller are a batch"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile trying to allocate 7 bytes."),
            2,
            "out of memory: Out of memory while trying to allocate 7 bytes.; smaller",
        ),
    ],
)
def test_a_fault_of_ours_keeps_its_traceback_and_a_full_memory_is_one_line(
    error, status, said, capsys, monkeypatch
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("ift_jax.commands.arguments.load_config", fail)
    arguments = ["train", "--config", "configs/quickstart.py", "--workdir", "x"]
    assert main.main(arguments) == status
    printed = capsys.readouterr().err
    assert ("Traceback" in printed) == (status == 1)
    assert said in printed.splitlines()[-1]


def test_the_report_of_a_fault_leads_to_a_section_that_exists():
    assert "## Report a fault" in (runs.REPO / "CONTRIBUTING.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("device", "given", "chosen"),
    [(None, None, "cpu"), (None, "", ""), (None, "tpu", "tpu"), ("accel0", None, None)],
)
def test_the_cpu_is_chosen_where_no_accelerator_exists(
    tmp_path, monkeypatch, device, given, chosen
):
    monkeypatch.setattr(main, "ACCELERATORS", (f"{tmp_path}/accel*",))
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("JAX_PLATFORMS")
    if device:
        (tmp_path / device).touch()
    if given is not None:
        monkeypatch.setenv("JAX_PLATFORMS", given)
    main.choose_platform()
    assert os.environ.get("JAX_PLATFORMS") == chosen


@pytest.mark.usefixtures("own_registry")
def test_a_bad_line_is_named_before_anything_is_trained(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    data = runs.write_data(tmp_path / "data.jsonl", n=30)
    with open(data, "a", encoding="utf-8") as file:
        file.write('{"inputs": "a", "targets": 5}\n')
    command = runs.command(tmp_path / "run", data=data, stores=tmp_path)
    assert main.main(command[3:]) == 2
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "data.jsonl:31" in error and "targets" in error
    assert "Traceback" not in printed.out + printed.err


@pytest.mark.slow
@pytest.mark.usefixtures("one_device", "own_registry")
def test_a_small_run_from_data_to_answers(tmp_path, monkeypatch, capsys):
    # XLA compiles with its defaults, as it does for users.
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=1")
    monkeypatch.delenv("NPROC")
    data = runs.write_data(tmp_path / "data.jsonl")
    work = tmp_path / "run"
    arguments = runs.command(work, overrides=["evaluation.examples=3"], data=data, stores=tmp_path)

    # What needs TensorFlow runs in this process, which has it.
    assert main.main([*arguments[3:], "--dry-run"]) == 0
    dry = capsys.readouterr().out
    assert "dry run: nothing was trained" in dry and "memory per device" in dry
    assert '"d_model": 32' in dry and "an epoch: 114 examples" in dry
    assert not (work / "checkpoints").exists()

    assert main.main(["inspect", *arguments[4:6], *arguments[8:], "--examples", "2"]) == 0
    shown = capsys.readouterr().out
    for text in ("jsonl_data", "requested", "of trained tokens", "fill", "<|im_start|>assistant"):
        assert text in shown

    # The stores exist, so training and evaluation import no TensorFlow, nor readers of other files.
    check = (
        "import sys; from ift_jax.commands.main import main; status = main(sys.argv[1:]);"
        "unused = ('tensorflow', 'seqio', 'ift_jax.interop.gguf');"
        "print('TF', any(name in sys.modules for name in unused));"
        "sys.exit(status)"
    )
    output = runs.finish(runs.start([sys.executable, "-c", check, *arguments[3:]]))
    assert "TF False" in output
    assert "exact match" in output and "commonest answer" in output
    scores = json.loads((work / "evaluation.json").read_text())
    assert scores["unseen examples of the trained tasks"]["overall"]["examples"] == 3
    samples = [json.loads(line) for line in (work / "samples.jsonl").read_text().splitlines()]
    assert {sample["step"] for sample in samples} == {0, 25, 50, 60}
    assert all(s["prompt"].endswith("<|im_start|>assistant\n") for s in samples)
    assert list((work / "tensorboard").glob("events*"))

    # Loaded by another process, this one, the model answers as it did when training ended.
    again = ["eval", *arguments[4:], "--output", str(tmp_path / "scores.json")]
    assert main.main(again) == 0
    assert "exact match" in capsys.readouterr().out
    scored = json.loads((tmp_path / "scores.json").read_text())
    # `ift eval` measures the loss as well, which the run has in metrics.jsonl.
    for values in (*scored["tasks"].values(), scored["overall"]):
        assert values.pop("loss") > 0
    at_the_end = scores["unseen examples of the trained tasks"]
    assert {name: scored[name] for name in at_the_end} == at_the_end
    assert scored["answers"] == [
        json.loads(line) for line in (work / "answers.jsonl").read_text().splitlines()
    ]

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"inputs": "say the first: cat dog"}\n'
        '{"messages": [{"role": "user", "content": "say the first: red cat"}]}\n'
    )
    answers = tmp_path / "answers.jsonl"
    generate = ["generate", "--workdir", str(work), "--prompts", str(prompts)]
    generate += ["--output", str(answers)]
    assert main.main(generate) == 0
    whole = answers.read_bytes()
    answers.write_bytes(whole[:-3])
    capsys.readouterr()
    assert main.main(generate) == 0
    continued = capsys.readouterr().out
    assert "2 answers" in continued and "; 1 of them" in continued
    assert answers.read_bytes() == whole
    lines = [json.loads(line) for line in whole.splitlines()]
    assert len(lines) == 2 and all({"answer", "stopped", "new_tokens"} <= set(a) for a in lines)
    prompts.write_text('{"inputs": "fine"}\n{"input": "misspelt"}\n')
    assert main.main(["generate", "--workdir", str(work), "--prompts", str(prompts)]) == 2
    assert "prompts.jsonl:2" in capsys.readouterr().err
