"""What a workdir says about its run, and which runs it refuses."""

import json

import pytest

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.run_description import RunRecord, read_config
from ift_jax.config import files as config_files
from ift_jax.errors import UserError


@pytest.mark.parametrize(
    ("section", "old", "new"),
    [
        ("data", "row_length", "max_length"),
        ("train", "batch_rows", "batch_size"),
        ("train", "microbatches", "gradient_accumulation_steps"),
    ],
)
def test_a_workdir_with_the_former_field_names_is_refused_in_one_line(tmp_path, section, old, new):
    config = config_files.load("configs/quickstart.py")
    values = json.loads(config_files.to_json(config))
    values[section][old] = values[section].pop(new)
    (tmp_path / "config.json").write_text(json.dumps(values))
    for refused in (
        lambda: read_config(str(tmp_path)),
        lambda: open_model_source(str(tmp_path)),
    ):
        with pytest.raises(UserError) as error:
            refused()
        message = str(error.value)
        assert message.startswith(f"{tmp_path}/config.json: ") and "earlier version" in message
        assert f"{section}.{old} is now {section}.{new}" in message
        assert "\n" not in message


def test_the_record_of_a_run_is_read_back_and_a_broken_one_is_refused(tmp_path):
    assert RunRecord.read(str(tmp_path)) == RunRecord()
    record = RunRecord({"tokenizer": "t"}, inputs_since=4, finished_at=9)
    record.write(str(tmp_path))
    assert RunRecord.read(str(tmp_path)) == record
    for content in ("{}", '{"inputs": 1', "[]"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(UserError, match="run.json"):
            RunRecord.read(str(tmp_path))
