"""The model card of an export says what the files of the workdir say, and no more."""

import dataclasses
import json
import re

import pytest
import yaml

from ift_jax.checkpoint.import_model import import_model
from ift_jax.checkpoint.load_model import describe_model
from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.merge_models import Part, merge_models
from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.commands.main import main
from ift_jax.config.schema import LoraConfig
from ift_jax.errors import UserError
from ift_jax.models import build_model
from ift_jax.report.card import Subject, model_card
from ift_jax.report.card.markdown import block, code
from tests.small_models import (
    ARCHITECTURES,
    CONFIG,
    random_model,
    random_params,
    write_workdir,
)

HUB_FOLDER = "/somewhere/hub/models--own--tiny-base/snapshots/abc123"
DATA = "/home/me/secret/chats.jsonl=2,hf://own/MySet:default@main#train_sft=1"


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def run_config(**model):
    data = dataclasses.replace(
        CONFIG.data,
        modules=("ift_jax.sources.given_data",),
        root=DATA,
        mixture="data",
        store_dir="/home/me/stores",
    )
    return dataclasses.replace(
        CONFIG,
        data=data,
        model=dataclasses.replace(CONFIG.model, **model),
        train=dataclasses.replace(CONFIG.train, steps=20),
        optimizer=dataclasses.replace(CONFIG.optimizer, learning_rate=3e-4, weight_decay=0.1),
    )


def store(rate, examples, trained, dropped):
    counts = {"trained_tokens": trained, "truncated": 1, "dropped": dropped}
    return {"rate": rate, "examples": examples, **counts}


def write_run(workdir, config):
    """Write the workdir of a run of 20 steps, with a checkpoint at 10 and one at 20."""
    write_workdir(workdir, config)
    checkpoints = Checkpoints(str(workdir), keep=2)
    for step in (10, 20):
        checkpoints.save(step, {"params": random_model()[1]})
    checkpoints.close()
    tasks = {
        "data_chats": store(2.0, 57, 1234, {"too_long": 2, "no|answer": 1}),
        "data_MySet_train_sft": store(1.0, 30, 666, {"too_long": 3}),
    }
    mixtures = {"train": tasks, "eval": {"data_chats": store(2.0, 3, 70, {})}}
    record = {"inputs": {"mixtures": mixtures}, "inputs_since": 0, "finished_at": 20}
    (workdir / "run.json").write_text(json.dumps(record))
    write_lines(
        workdir / "metrics.jsonl",
        [
            {"step": 0, "eval_loss": 3.0},
            {"step": 10, "nll": 2.75, "trained_tokens": 1000},
            {"step": 10, "eval_loss": 2.0},
            {"step": 20, "nll": 2.5, "trained_tokens": 1100},
            {"step": 20, "eval_loss": 2.125},
            {"step": 20, "evaluation": {"eval": {}}},
        ],
    )
    scores = {"examples": 3, "exact_match": 0.75, "own": 12.5, "stopped": 1.0}
    interval = {"exact_match": {"standard_error": 0.1, "low": 0.5, "high": 0.9}}
    part = {"tasks": {"data_chats": scores}, "overall": scores, "intervals": {}, "groups": {}}
    part |= {"failures": [], "intervals": {"data_chats": interval}}
    (workdir / "evaluation.json").write_text(json.dumps({"unseen examples": part}))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("card") / "mine"
    write_run(workdir, run_config(init_from=HUB_FOLDER))
    return workdir


def card_of(path, step=None, output="/home/me/out/my-model", **fields):
    source = open_model_source(str(path), step)
    return model_card(Subject(source, describe_model(source), output, **fields))


def front_matter(card):
    hub = pytest.importorskip("huggingface_hub", reason="the hub's own loader reads the card")
    return hub.ModelCard(card).data.to_dict()


def rows(card):
    """The rows of all tables, as lists of cells."""
    found = re.findall(r"^\| (.*) \|$", card, flags=re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in found]


def test_the_front_matter_is_what_the_hub_reads(run):
    assert front_matter(card_of(run)) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "base_model": "own/tiny-base",
        "base_model_relation": "finetune",
        "datasets": ["own/MySet"],
        "tags": ["ift_jax", "sft"],
    }


def test_the_card_has_the_numbers_of_the_files(run):
    card = card_of(run)
    assert "# my-model\n" in card
    assert "finetuned from [own/tiny-base](https://huggingface.co/own/tiny-base)" in card
    table = rows(card)
    dropped = "`no\\|answer` 1, `too_long` 2"
    assert ["`data_chats`", "66.7%", "57", "1,234", "1", dropped] in table
    assert ["`data_MySet_train_sft`", "33.3%", "30", "666", "1", "`too_long` 3"] in table
    assert ["all", "100.0%", "87", "1,900", "2", "`no\\|answer` 1, `too_long` 5"] in table
    assert "Not trained on: 3 examples of the same tasks" in card
    assert ["learning rate", "0.0003, cosine, warm-up of 0% of the steps"] in table
    assert ["steps", "20, the last of the run"] in table
    assert ["trained tokens seen", "2,100"] in table
    losses = ["unseen examples of the trained tasks", "3.0000", "2.1250", "2.0000 at step 10"]
    assert losses in table
    assert ["task", "examples", "`exact match`", "`own`"] in table
    assert ["`data_chats`", "3", "0.750 (0.500 to 0.900)", "12.500"] in table
    assert "Template: `chatml`" in card
    assert "ift export --workdir mine --output my-model --step 20\n" in card
    assert "## License\n\nNot stated." in card and "license" not in front_matter(card)


def test_an_earlier_step_has_its_own_numbers_and_says_whose_the_scores_are(run):
    card = card_of(run, 10)
    assert ["steps", "10, of a run that ended at 20"] in rows(card)
    assert ["trained tokens seen", "1,000"] in rows(card)
    losses = ["unseen examples of the trained tasks", "3.0000", "2.0000", "2.0000 at step 10"]
    assert losses in rows(card)
    assert "**These scores are of step 20 of the same run**, not of the exported step 10." in card
    record = {"step": 10, "which": "eval", "overall": {"examples": 3, "exact_match": 0.25}}
    record |= {"tasks": {"data_chats": record["overall"]}, "intervals": {}}
    write_lines(run / "evaluations.jsonl", [record, {**record, "step": 20}])
    try:
        card = card_of(run, 10)
    finally:
        (run / "evaluations.jsonl").unlink()
    assert ["`data_chats`", "3", "0.250"] in rows(card)
    assert "These scores are of" not in card


def test_the_config_in_the_card_trains_again_and_names_no_folder_of_this_machine(run):
    from ift_jax.config import files

    card = card_of(run, flags=("--dtype", "bfloat16"))
    assert "/home" not in card and "/somewhere" not in card and str(run.parent) not in card
    [text] = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    values = yaml.safe_load(text)
    assert values["data"]["root"] == "chats.jsonl=2,hf://own/MySet:default@main#train_sft=1"
    assert values["model"]["init_from"] == "own/tiny-base"
    run_config_file = run.parent / "again.yaml"
    run_config_file.write_text(text)
    again = files.load(str(run_config_file))
    expected = run_config()
    assert again.optimizer == expected.optimizer and again.train == expected.train


def test_a_base_model_may_be_named_and_an_unknown_one_is_said_to_be(run, tmp_path):
    assert front_matter(card_of(run, given_base="you/other"))["base_model"] == "you/other"
    write_run(tmp_path / "run", run_config(init_from="/home/me/models/Base-1B"))
    card = card_of(tmp_path / "run")
    assert "finetuned from `Base-1B` (a local copy, whose name on the hub is not known)" in card
    assert "base_model" not in front_matter(card)
    write_run(tmp_path / "fresh", run_config())
    assert "trained from fresh weights" in card_of(tmp_path / "fresh")


def test_a_run_that_began_from_another_run_says_so(run, tmp_path):
    write_run(tmp_path / "second", run_config(init_from=str(run)))
    card = card_of(tmp_path / "second")
    assert front_matter(card)["base_model"] == "own/tiny-base"
    assert "Other workdirs came in between (`mine`)" in card
    assert "init_from: mine" in card


def test_adapters_have_a_card_of_their_own(tmp_path):
    config = dataclasses.replace(run_config(init_from=HUB_FOLDER), lora=LoraConfig(rank=4))
    write_run(tmp_path / "lora", config)
    card = card_of(tmp_path / "lora", is_adapter=True, flags=("--adapter",))
    fields = front_matter(card)
    assert fields["library_name"] == "peft" and fields["base_model_relation"] == "adapter"
    assert fields["tags"] == ["ift_jax", "sft", "lora", "transformers"]
    assert "LoRA adapters for a decoder of" in card
    assert "--step 20 --adapter\n" in card
    assert "PeftModel.from_pretrained(base, folder)" in card
    assert 'from_pretrained("own/tiny-base")' in card
    merged = card_of(tmp_path / "lora")
    assert front_matter(merged)["library_name"] == "transformers"
    assert "LoRA of rank 4" in merged


def test_an_encoder_decoder_is_loaded_as_one(tmp_path):
    model = dataclasses.replace(ARCHITECTURES["encoder_decoder"], vocab_size=480)
    config = dataclasses.replace(CONFIG, model=model)
    write_workdir(tmp_path / "t5", config, random_params(build_model(model)))
    card = card_of(tmp_path / "t5")
    assert "An encoder-decoder of" in card and "pipeline_tag" not in card
    assert "AutoModelForSeq2SeqLM.from_pretrained(folder)" in card
    assert "apply_chat_template" not in card


def test_what_an_earlier_version_did_not_record_is_said_to_be_unknown(run, tmp_path):
    write_run(tmp_path / "old", run_config())
    record = json.loads((tmp_path / "old" / "run.json").read_text())
    for task in record["inputs"]["mixtures"]["train"].values():
        del task["trained_tokens"], task["truncated"], task["dropped"]
    record["inputs_since"] = 5
    record["finished_at"] = None
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    for name in ("metrics.jsonl", "evaluation.json"):
        (tmp_path / "old" / name).unlink()
    card = card_of(tmp_path / "old")
    assert ["`data_chats`", "66.7%", "57", *["not recorded"] * 3] in rows(card)
    assert "the data since step 5; before that the run read others" in card
    assert ["steps", "20, of a run that had not ended"] in rows(card)
    assert "## Results\n\nNothing was measured." in card
    (tmp_path / "old" / "run.json").unlink()
    assert "Its examples: not recorded." in card_of(tmp_path / "old")


def test_many_tasks_are_summed(tmp_path):
    write_run(tmp_path / "many", run_config())
    path = tmp_path / "many" / "run.json"
    record = json.loads(path.read_text())
    tasks = {f"task{k}": store(1.0, 10, k, {"too_long": 1}) for k in range(100)}
    record["inputs"]["mixtures"]["train"] = tasks
    path.write_text(json.dumps(record))
    table = rows(card_of(tmp_path / "many"))
    assert ["60 more tasks", "60.0%", "600", f"{sum(range(60)):,}", "60", "`too_long` 60"] in table
    assert ["all", "100.0%", "1,000", "4,950", "100", "`too_long` 100"] in table
    assert ["`task99`", "1.0%", "10", "99", "1", "`too_long` 1"] in table


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    argv = ["export", "--workdir", str(run), "--output", str(folder / "out"), "--best"]
    (run / "checkpoints.json").write_text('{"10": {"eval_loss": 2.0}, "20": {"eval_loss": 2.125}}')
    assert main(argv) == 0
    return folder / "out"


def test_an_export_has_its_card_and_an_imported_one_is_a_copy_of_it(exported, tmp_path):
    card = (exported / "README.md").read_text()
    assert ["steps", "10, of a run that ended at 20"] in rows(card)
    assert front_matter(card)["tags"] == ["ift_jax", "sft"]
    import_model(str(exported), str(tmp_path / "imported"))
    copied = card_of(tmp_path / "imported")
    assert "the weights of `out` (a local copy" in copied and "Nothing was trained" in copied
    assert front_matter(copied)["tags"] == ["ift_jax"]
    for absent in ("## Training", "## Results", "ift train", "sft"):
        assert absent not in copied
    assert len(copied) < len(card) / 2
    named = card_of(tmp_path / "imported", given_base="own/tiny")
    assert front_matter(named)["base_model"] == "own/tiny"
    assert "base_model_relation" not in front_matter(named)
    # Without an import in between.
    assert "the weights of `out` (a local copy" in card_of(exported)
    parts = [Part(str(exported), None, 0.25), Part(str(tmp_path / "imported"), None, 0.75)]
    merge_models(parts, str(tmp_path / "merged"))
    merged = card_of(tmp_path / "merged")
    assert ["0.25", "`out`", ""] in rows(merged) and ["0.75", "`imported`", ""] in rows(merged)
    assert "the weighted mean of other models" in merged
    assert front_matter(merged)["tags"] == ["ift_jax", "merge"]
    # A workdir of before `origin.json`.
    (tmp_path / "imported" / "origin.json").unlink()
    assert "a workdir, `imported`, that names no other model" in card_of(tmp_path / "imported")
    (tmp_path / "merged" / "origin.json").write_text("{}")
    with pytest.raises(UserError, match=r"origin.json: is not what ift_jax wrote"):
        card_of(tmp_path / "merged")


def test_the_code_in_the_card_answers_a_question(exported, monkeypatch, capsys):
    pytest.importorskip("transformers", reason="the card's code loads the folder with it")
    [source] = re.findall(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(exported.parent)
    values = {}
    exec(compile(source.replace("=64", "=4"), "card", "exec"), values)
    assert 1 <= len(values["answer"]) <= 4
    assert capsys.readouterr().out.endswith("\n")


def test_a_card_that_is_there_is_never_overwritten(run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("mine")
    assert main(["export", "--workdir", str(run), "--output", str(tmp_path)]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "mine"


def test_texts_of_users_are_no_markup():
    assert code("a|b\nc") == "`a\\|b c`"
    assert code("`") == "`` ` ``" and code("") == "` `"
    assert block("```\nx", "yaml") == "````yaml\n```\nx\n````"
