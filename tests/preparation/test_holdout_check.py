"""A run that trains on what it holds out is refused by the commands, before anything is read."""

import json

import pytest
import seqio

from ift_jax.commands import main
from ift_jax.errors import UserError
from ift_jax.preparation import holdout_check, seqio_registry
from tasks.flan import collection, flan2021
from tests.sources.dataset_files import TEMPLATES, write

pytestmark = pytest.mark.usefixtures("own_registry")


def _root(tmp_path):
    """The layouts of Natural Instructions (two tracks), of the Collection's copy, and of T0."""
    task = {
        "Definition": ["Do."],
        "Positive Examples": [],
        "Instances": [{"input": f"i{i}", "output": ["x"]} for i in range(30)],
    }
    for name in ("task1_a", "task2_b", "task3_c"):
        for folder in ("tasks", "niv2/tasks"):
            write(tmp_path / folder / f"{name}.json", task)
    for track, train, test in (
        ("default", "task1_a", "task2_b"),
        ("xlingual", "task2_b", "task3_c"),
    ):
        folder = tmp_path / "splits" / track
        folder.mkdir(parents=True)
        (folder / "train_tasks.txt").write_text(train)
        (folder / "test_tasks.txt").write_text(test)
    for dataset in ("imdb", "hellaswag", "super_glue/copa"):
        folder = tmp_path / "promptsource" / "templates" / dataset
        folder.mkdir(parents=True)
        (folder / "templates.yaml").write_text(TEMPLATES)
    return tmp_path


def _run(command, tmp_path, mixture, heldout, *more):
    seqio_registry._registered.clear()
    arguments = [
        "--config", f"ift_jax/inspection/default_config.py:{mixture}",
        f"--config.data.heldout_mixture={heldout}",
        f"--config.data.root={tmp_path}", f"--config.data.store_dir={tmp_path / 'stores'}", *more,
    ]  # fmt: skip
    if heldout.startswith("t0"):
        arguments.append("--config.data.heldout_split=validation")
    if command == "train":
        arguments += ["--workdir", str(tmp_path / "run"), "--dry-run"]
    return main.main([command, *arguments])


@pytest.mark.parametrize("command", ["train", "prepare", "inspect"])
@pytest.mark.parametrize(
    ("mixture", "heldout", "named"),
    [
        ("flan2021", "flan2021_sentiment_all", "data.mixture has flan2021_imdb, flan2021_"),
        ("flan2021_paraphrase_all", "flan2021_entailment_all_score_eval", "cluster paraphrase"),
        ("flan2021_common_sense_all", "flan2021_cosmos_qa", "cluster common_sense"),
        ("natural_instructions_heldout", "natural_instructions_heldout", "instructions_task2_b"),
        ("natural_instructions_xlingual_train", "natural_instructions_heldout", "task2_b (Natural"),
        ("t0+_train", "t0_eval_score_eval", "hellaswag_ask (hellaswag, held out by hellas"),
        ("gsm8k_calculator", "gsm8k_5_shot", "gsm8k_calculator (gsm8k, held out by gsm8k_5_shot)"),
    ],
)  # fmt: skip
def test_commands_refuse_what_is_held_out(tmp_path, capfd, command, mixture, heldout, named):
    split = "train" if "heldout" not in mixture else "test"
    assert _run(command, _root(tmp_path), mixture, heldout, f"--config.data.split={split}") == 2
    [line] = [s for s in capfd.readouterr().err.splitlines() if s.startswith("error: ")]
    assert "data.heldout_mixture: what is held out cannot be trained on" in line and named in line
    assert not list((tmp_path / "stores").glob("*")) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("mixture", "heldout", "named"),
    [
        ("flan_collection_niv2", "natural_instructions_heldout", "niv2_task2_b_"),
        ("flan_collection_cot", "gsm8k", "cot_gsm8k"),
        ("t5_glue_rte", "flan2021_mrpc", ""),
        ("squad_trivia_qa_equal", "flan2021_squad_v1", "t5_squad (squad/v1.1, held out by"),
        ("glue_proportional", "flan2021_mrpc", "t5_glue_mrpc (glue/mrpc, held out by"),
        ("t0_train", "t0_eval_score_eval", ""),
        ("natural_instructions_cap64_train", "natural_instructions_heldout", ""),
    ],
)
def test_also_between_systems(tmp_path, capfd, mixture, heldout, named):
    """Where the check passes, the command continues: it prepares, or says which data is missing."""
    _run("prepare", _root(tmp_path), mixture, heldout)
    errors = capfd.readouterr().err
    assert ("cannot be trained on" in errors) == bool(named)
    assert named in errors


def _tasks(name):
    return seqio.get_subtasks(seqio.get_mixture_or_task(name))


def test_flans_own_holdouts_pass():
    flan2021.register("")
    for cluster in flan2021.CLUSTERS:
        for suffix in ("", "_multi_shot"):
            trained = _tasks(f"flan2021_without_{cluster}{suffix}")
            holdout_check.check_holdout(trained, _tasks(f"flan2021_{cluster}_all"))
        for close in flan2021.excluded_with(cluster):
            with pytest.raises(UserError) as error:
                holdout_check.check_holdout(
                    _tasks(f"flan2021_{close}_all"), _tasks(f"flan2021_{cluster}_all")
                )
            assert f"flan2021_{flan2021.CLUSTERS[close][0]}" in str(error.value)


def test_the_collection_trains_on_every_cluster():
    collection.register("")
    flan2021.register("")
    with pytest.raises(UserError, match=r"flan2021_imdb_\w+ .* and \d+ more"):
        holdout_check.check_holdout(_tasks("flan_collection"), _tasks("flan2021_sentiment_all"))
    holdout_check.check_holdout(_tasks("flan_collection_cot"), _tasks("flan2021_sentiment_all"))


def test_tasks_of_no_system_are_told_by_their_names(tmp_path):
    from ift_jax.sources.register import register_rows_task

    (tmp_path / "a.jsonl").write_text(json.dumps({"inputs": "a", "targets": "b"}) + "\n")
    a, b = (register_rows_task(name, {"train": str(tmp_path / "a.jsonl")}) for name in "ab")
    holdout_check.check_holdout([a], [b])
    with pytest.raises(UserError, match="but data.mixture has a$"):
        holdout_check.check_holdout([b, a], [a])
