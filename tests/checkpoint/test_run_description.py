"""What a workdir says about its run, and which runs it refuses."""

import dataclasses
import json

import pytest

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.checkpoint.run_description import check_same_run
from ift_jax.config import files as config_files
from ift_jax.errors import UserError


def test_another_run_in_the_same_workdir_is_refused(tmp_path):
    config = config_files.load("configs/quickstart.py")
    check_same_run(str(tmp_path), config)  # Nothing there yet.
    (tmp_path / "config.json").write_text(config_files.to_json(config))
    check_same_run(str(tmp_path), config)
    longer = dataclasses.replace(config.train, steps=9, save_every=3)
    check_same_run(str(tmp_path), dataclasses.replace(config, train=longer))
    changes = {
        "model": dataclasses.replace(config.model, d_ff=64),
        "data": dataclasses.replace(config.data, max_length=64),
        "train": dataclasses.replace(config.train, batch_size=64),
        "optimizer": dataclasses.replace(config.optimizer, freeze="embedding"),
        "seed": 5,
    }
    for section, value in changes.items():
        with pytest.raises(UserError, match=rf"config.{section}.*use another --workdir"):
            check_same_run(str(tmp_path), dataclasses.replace(config, **{section: value}))


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
        lambda: check_same_run(str(tmp_path), config),
        lambda: open_model_source(str(tmp_path)),
    ):
        with pytest.raises(UserError) as error:
            refused()
        message = str(error.value)
        assert message.startswith(f"{tmp_path}/config.json: ") and "earlier version" in message
        assert f"{section}.{old} is now {section}.{new}" in message
        assert "\n" not in message
