"""The model `ift_jax` of lm-evaluation-harness: against its model `hf` and our own evaluator."""

import functools
import importlib
import json
import sys
from importlib.machinery import PathFinder

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

import lm_eval.evaluator
import lm_eval.tasks
from lm_eval import simple_evaluate
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from ift_jax.commands.main import main
from ift_jax.decoding import Options
from ift_jax.evaluation.harness.model import IftJaxLM
from tests.evaluation import lm_eval_folders

pytestmark = pytest.mark.usefixtures("one_device")
NO_DEFAULTS = {"include_defaults": False}
TASKS = ["local_choice", "local_answer", "local_text"]
PAIRS = [
    ("Anna has lost", " 23 apples"),
    ("Anna has lost", " 1 system."),
    ("Anna has lost ", "nothing"),  # The space belongs to the continuation.
    ("", "The user counts"),
    ("So it is\n", "So"),
    ("Nobody sorts files. " * 90, "Anna counts 456 apples"),  # Longer than the model's context.
    ("<|im_start|>user\nHello<|im_end|>\n", "<|im_start|>assistant"),
]
TEXTS = ["Anna counts 23 apples.", "The user sorts systems! " * 150, "<s>So it is"]
CHAT = [
    {"role": "system", "content": "Count."},
    {"role": "user", "content": "Anna has 1 apple"},
    {"role": "assistant", "content": "So it is"},
    {"role": "user", "content": "and 23 systems?"},
]


def requests(kind, arguments):
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


@pytest.fixture(scope="module", autouse=True)
def few_lengths():
    """Pads all prompts and answers alike, so that few programs are compiled."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ift_jax.decoding.request_batch", "ift_jax.evaluation.rank_choices"):
            module = importlib.import_module(name)
            patch.setattr(module, "bucket", lambda n: 256 if n <= 256 else 320)
        # Where there is PyTorch, asking for its environment takes a second a run.
        patch.setattr(lm_eval.evaluator, "add_env_info", lambda results: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lm_eval_folders.write_model(tmp_path_factory.mktemp("released") / "model")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return lm_eval_folders.write_tasks(tmp_path_factory.mktemp("tasks"))


def hide(patch, *packages):
    """Makes packages look as if they were not installed."""
    find = PathFinder.find_spec
    for package in packages:
        patch.delitem(sys.modules, package, raising=False)
    patch.setattr(
        PathFinder,
        "find_spec",
        lambda name, *args: None if name in packages else find(name, *args),
    )


@pytest.fixture(scope="module")
def command(folder, tasks, tmp_path_factory):
    """A run of the command line without PyTorch: its model, results, and answered samples."""
    output = tmp_path_factory.mktemp("output")
    made = []
    make = IftJaxLM.create_from_arg_obj

    def kept(cls, *args):
        made.append(make(*args))
        return made[-1]

    words = ["lm-eval", "--model", "ift_jax", "--model_args", f"model={folder}"]
    words += ["--include_path", tasks, "--tasks", ",".join(TASKS), "--batch_size", "2"]
    words += ["--output_path", str(output), "--log_samples"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IftJaxLM, "create_from_arg_obj", classmethod(kept))
        hide(patch, "torch", "transformers")
        # Without those that it ships, the index of which takes seconds.
        patch.setattr(lm_eval.tasks, "TaskManager", functools.partial(TaskManager, **NO_DEFAULTS))
        assert main(words) == 0
    (file,) = output.glob("**/results_*.json")
    samples = {}
    for task in TASKS:
        (lines,) = output.glob(f"**/samples_{task}_*.jsonl")
        samples[task] = [json.loads(line) for line in lines.read_text().splitlines()]
    return made[0], json.loads(file.read_text()), samples


@pytest.fixture(scope="module")
def ours(command):
    return command[0]


@pytest.fixture(scope="module")
def theirs(folder):
    pytest.importorskip("torch", reason="the reference models are torch modules")
    pytest.importorskip("transformers", reason="the reference models live there")
    pytest.importorskip("accelerate", reason="lm-evaluation-harness's hf needs it")
    return get_model("hf")(pretrained=folder, device="cpu", dtype="float32", batch_size=2)


# --- Against lm-evaluation-harness's own model ---------------------------------------------------


def test_log_likelihoods_are_those_of_hf(ours, theirs):
    got = ours.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    want = theirs.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    np.testing.assert_allclose([a for a, _ in got], [a for a, _ in want], atol=1e-4)
    assert [greedy for _, greedy in got] == [bool(greedy) for _, greedy in want]
    texts = requests("loglikelihood_rolling", [(text,) for text in TEXTS])
    rolling = ours.loglikelihood_rolling(texts, disable_tqdm=True)
    want = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    np.testing.assert_allclose(rolling, want, rtol=1e-5, atol=1e-4)


def test_answers_are_those_of_hf(ours, theirs):
    asked = [
        ("Anna has lost", {"until": ["\n"], "max_gen_toks": 24}),
        ("The user counts", {"until": "a", "max_gen_toks": 24}),
        ("So it is", {"until": [], "max_gen_toks": 24, "do_sample": False, "temperature": 0}),
        ("Nobody sorts files. " * 90, {"until": ["\n"], "max_gen_toks": 24}),
    ]
    got = ours.generate_until(requests("generate_until", asked), disable_tqdm=True)
    # One by one: padding on the left, as `hf` batches prompts, changes what is greedy now and then.
    want = [theirs.generate_until(requests("generate_until", [a]), True)[0] for a in asked]
    assert got == want and any(got)


def test_chats_are_those_of_hf(ours, theirs):
    assert ours.apply_chat_template(CHAT) == theirs.apply_chat_template(CHAT)
    begun = [*CHAT, {"role": "assistant", "content": "The answer is"}]
    got = ours.apply_chat_template(begun, add_generation_prompt=False)
    assert got == theirs.apply_chat_template(begun, add_generation_prompt=False)
    assert ours.tok_encode(got) == theirs.tok_encode(got)
    assert ours.chat_template(True) == theirs.chat_template(True)
    assert ours.chat_template(False) is None


# --- Under lm-evaluation-harness, against our own evaluator --------------------------------------


def evaluate(model, tasks, names, **options):
    manager = TaskManager(include_path=tasks, **NO_DEFAULTS)
    return simple_evaluate(
        model=model, tasks=names, task_manager=manager, bootstrap_iters=0, **options
    )


def choice_scores(samples):
    """The log-likelihoods of each question's choices, by the question's place."""
    samples = sorted(samples["local_choice"], key=lambda sample: sample["doc_id"])
    return [[float(resp[0][0]) for resp in sample["resps"]] for sample in samples]


def test_numbers_are_those_of_our_evaluator_to_the_digit(command, folder, tasks, tmp_path):
    data = lm_eval_folders.write_arc(tmp_path, tasks)
    words = ["eval", "--benchmarks", "arc_easy", "--benchmark-data", data, "--model", folder]
    words += ["--prompt-style", "plain", "--batch-size", "2", "--output", str(tmp_path / "out")]
    assert main(words) == 0
    metrics = json.loads((tmp_path / "out" / "results.json").read_text())["benchmarks"]["arc_easy"]
    _, results, samples = command
    got = results["results"]["local_choice"]
    for name in ("acc", "acc_norm"):
        assert got[f"{name},none"] == metrics["metrics"][name]["value"], name
    lines = (tmp_path / "out" / "answers" / "arc_easy.jsonl").read_text().splitlines()
    lines = sorted(map(json.loads, lines), key=lambda line: line["index"])
    assert [line["log_likelihoods"] for line in lines] == choice_scores(samples)


def check_same_numbers(command, want):
    _, results, samples = command
    for task, metrics in want["results"].items():
        values = {name: value for name, value in metrics.items() if isinstance(value, float)}
        assert values
        for name, value in values.items():
            assert results["results"][task][name] == pytest.approx(value, rel=1e-5), name
    pairs = zip(choice_scores(samples), choice_scores(want["samples"]), strict=True)
    for got, scores in pairs:
        np.testing.assert_allclose(got, scores, atol=1e-4)
    answers = [of["local_answer"] for of in (samples, want["samples"])]
    assert [s["resps"] for s in answers[0]] == [s["resps"] for s in answers[1]]


def test_numbers_are_those_of_hf(command, theirs, tasks):
    check_same_numbers(command, evaluate(theirs, tasks, TASKS))


def test_numbers_are_those_through_our_server(command, folder, tasks):
    for package in ("transformers", "tenacity", "starlette"):
        pytest.importorskip(package, reason="local-completions and the server need it")
    from ift_jax.serving.served_model import ServedModel
    from tests.serving.served import serving

    ours = command[0]
    served = ServedModel("tiny", ours.text_generator, ours.generator, max_answers=4, seed=7)
    with serving(served) as (server, _, _):
        # One prompt at a time, so that a program for one row serves all.
        asking = get_model("local-completions")(
            model="tiny",
            base_url=f"{server.address}/v1/completions",
            tokenizer=folder,
            tokenizer_backend="huggingface",
            add_bos_token=True,
            max_length=lm_eval_folders.MAX_LENGTH + 1,
        )
        check_same_numbers(command, evaluate(asking, tasks, TASKS))


def test_results_say_what_was_evaluated(command, folder):
    ours, results, _ = command
    config = results["config"]
    assert config["model"] == "ift_jax" and config["model_path"] == folder
    assert (config["model_step"], config["max_length"], config["batch_size"]) == (0, 256, "2")
    assert ours.get_model_info()["model_fingerprint"] == config["model_fingerprint"]


def test_shots_as_turns_are_written_by_the_model_s_template(ours, tasks):
    options = {"apply_chat_template": True, "num_fewshot": 2, "system_instruction": "Be brief."}
    results = evaluate(ours, tasks, ["local_answer"], fewshot_as_multiturn=True, **options)
    sample = results["samples"]["local_answer"][0]
    prompt = sample["arguments"][0][0]
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert prompt.count("<|im_start|>user") == 3 and prompt.count("<|im_start|>assistant") == 3
    assert prompt.endswith(
        f"{sample['doc']['question']}\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    )


# --- Batches, samples, windows -------------------------------------------------------------------


def test_results_do_not_depend_on_the_batch(ours, monkeypatch):
    want = ours.loglikelihood(requests("loglikelihood", PAIRS), disable_tqdm=True)
    sampled = {"do_sample": True, "temperature": 1.0, "until": [], "max_gen_toks": 8}
    asked = [("Anna has", sampled), ("The user", sampled), ("Anna has", sampled)]
    drawn = ours.generate_until(requests("generate_until", asked), disable_tqdm=True)
    assert drawn[0] != drawn[2]  # A repeated prompt is answered anew.
    monkeypatch.setattr(ours, "batch_size", 1)
    backwards = requests("loglikelihood", PAIRS[::-1])
    got = ours.loglikelihood(backwards, disable_tqdm=True)[::-1]
    np.testing.assert_allclose([a for a, _ in got], [a for a, _ in want], atol=1e-5)
    fewer = requests("generate_until", [asked[1], asked[0]])
    assert ours.generate_until(fewer, disable_tqdm=True) == [drawn[1], drawn[0]]
    monkeypatch.setattr(ours, "seed", 1)
    assert ours.generate_until(fewer, disable_tqdm=True) != [drawn[1], drawn[0]]


def test_a_greedy_answer_is_called_greedy(ours):
    context = ours.tok_encode("The user counts")
    [ids] = ours.generator.generate([context], Options(max_new_tokens=5), batch_size=2)
    wrong = [*ids[:-1], (ids[-1] + 1) % 500]
    pairs = [(None, context, ids), (None, context, wrong), (None, context, ids[:2])]
    found = ours._loglikelihood_tokens(pairs, True)
    assert [greedy for _, greedy in found] == [True, False, True]
    assert found[0][0] > found[1][0] and len(ids) == 5
