"""A damaged store is made again from what is left of it; one that may only be read can be used."""

import json
import shutil
from pathlib import Path

import pytest

from ift_jax.data.batches import BatchPlan
from ift_jax.errors import UserError
from ift_jax.io import side_folder
from ift_jax.preparation import prepare as prepare_module
from ift_jax.preparation.open_or_prepare import open_or_prepare
from ift_jax.preparation.prepare import prepare
from tests.io.read_only import read_only
from tests.preparation.runs import changed, contents, quiet

pytestmark = pytest.mark.usefixtures("own_registry")


def flip(path):
    """Flip one bit in the ids of a part, whose tables of offsets stay as they are."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_what_is_wrong_is_made_again_and_said_so(config):
    _, mixture = open_or_prepare(config, log=quiet)
    [folder] = [store.path for store in mixture.stores]
    whole = contents(folder)
    part, manifest = folder / "part-00001.arrow", folder / "manifest.json"

    def remake_manifest():
        manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"examples": 1}))

    for damage, said, kept in (
        (lambda: flip(part), "part-00001.arrow does not have the bytes that were written", 2),
        (part.unlink, "part-00001.arrow cannot be read: No such file or directory", 2),
        (lambda: part.with_suffix(".json").unlink(), None, None),  # Only needed to build.
        (lambda: (flip(part), part.with_suffix(".json").write_text("{")), "part-00001.arrow", 2),
        (manifest.unlink, "is not a complete token store", 3),
        (remake_manifest, "manifest.json: does not hold the values that were written", 3),
    ):
        damage()
        lines = []
        _, again = open_or_prepare(config, log=lines.append)
        if said is None:
            assert lines == []
            continue
        assert said in lines[0] and lines[0].endswith(": it is made again")
        assert f"{kept} of 3 parts are there already" in lines
        assert again.stores[0].path == folder and contents(folder) == whole
        assert not folder.with_name(f"{folder.name}.partial").exists()
    assert open_or_prepare(config, log=lines.append) and "made again" not in lines[-1]


def test_a_part_of_an_interrupted_preparation_is_compared_too(config):
    [store] = prepare(config, log=quiet).mixture.stores
    whole = contents(store.path)
    partial = store.path.with_name(f"{store.path.name}.partial")
    store.path.rename(partial)
    (partial / "manifest.json").unlink()
    flip(partial / "part-00002.arrow")
    (partial / "part-00000.arrow").unlink()
    lines = []
    assert contents(prepare(config, log=lines.append).mixture.stores[0].path) == whole
    assert "1 of 3 parts are there already" in lines


def test_a_damaged_store_that_cannot_be_made_again_is_named(config):
    _, mixture = open_or_prepare(config, log=quiet)
    [folder] = [store.path for store in mixture.stores]
    flip(folder / "part-00000.arrow")
    with read_only(config.data.store_dir), pytest.raises(UserError) as caught:
        open_or_prepare(config, log=quiet)
    message = str(caught.value)
    assert "cannot be written: Read-only file system" in message and "\n" not in message
    assert f"because of this: {folder}: part-00000.arrow does not have the bytes" in message


def test_a_damaged_tokenizer_is_trained_again(config):
    path = Path(prepare(config, log=quiet).tokenizer_path)
    whole = path.read_bytes()
    for damage in (lambda: flip(path), lambda: path.write_bytes(whole[:50])):
        damage()
        lines = []
        prepared = prepare(config, log=lines.append)
        assert path.read_bytes() == whole and prepared.tokenizer_path == str(path)
        assert any(line.startswith(f"{path} is not known to have the bytes") for line in lines)


def test_a_damaged_note_or_plan_is_not_believed(config):
    _, mixture = open_or_prepare(config, log=quiet)
    [note] = Path(config.data.store_dir, "requests").iterdir()
    expected = BatchPlan(mixture, config.data, "decoder", 4, 0, steps=2).summary()
    [plan] = Path(config.data.store_dir, "plans").iterdir()
    for path, damaged in (
        (note, b'"rate": 7'),
        (plan, plan.read_bytes()[:-8] + b"\0\0\0\0\0\0\1\0"),
    ):
        whole = path.read_bytes()
        new = whole.replace(b'"rate": 1', damaged) if path == note else damaged
        assert new != whole
        path.write_bytes(new)
        _, again = open_or_prepare(config, log=quiet)
        assert again.rates.tolist() == [1.0]
        assert BatchPlan(again, config.data, "decoder", 4, 0, steps=2).summary() == expected
        assert path.read_bytes() == whole


def test_stores_that_may_only_be_read_are_used(config, tmp_path, monkeypatch):
    monkeypatch.setenv("IFT_JAX_CACHE", str(tmp_path / "cache"))
    store_dir = config.data.store_dir
    for which in ("train", "eval"):
        open_or_prepare(config, which, log=quiet)
    for name in ("requests", "verified", "locks"):
        shutil.rmtree(Path(store_dir, name))
    before = sorted(Path(store_dir).rglob("*"))
    lines, calls = [], []
    real = prepare_module.prepare

    def counted(*arguments, **options):
        calls.append(arguments)
        return real(*arguments, **options)

    monkeypatch.setattr(prepare_module, "prepare", counted)
    plans = []
    with read_only(store_dir):
        for _ in range(2):
            side_folder._chosen.clear()  # As in another process.
            _, mixture = open_or_prepare(config, log=lines.append)
            plans.append(BatchPlan(mixture, config.data, "decoder", 4, 0, steps=2).summary())
        assert len(calls) == 1  # The note, the check and the plan are found again.
        with pytest.raises(UserError, match="cannot be written: Read-only file system"):
            prepare(changed(config, data__max_length=400), log=quiet)
    assert plans[0] == plans[1] and sorted(Path(store_dir).rglob("*")) == before
    [folder] = (tmp_path / "cache" / "read_only_stores").iterdir()
    assert {path.name for path in folder.iterdir()} == {"requests", "verified", "plans", "locks"}
    said = "Read-only file system: plans and checks of stores are"
    assert lines == [f"data.store_dir {store_dir}: {said} kept in {folder}"]


def test_without_any_folder_to_write_nothing_is_kept(config, tmp_path, monkeypatch):
    monkeypatch.setenv("IFT_JAX_CACHE", str(tmp_path / "cache"))
    open_or_prepare(config, log=quiet)
    shutil.rmtree(Path(config.data.store_dir, "verified"))
    side_folder._chosen.clear()
    lines = []
    with read_only(tmp_path):
        for _ in range(2):
            _, mixture = open_or_prepare(config, log=lines.append)
            assert BatchPlan(mixture, config.data, "decoder", 4, 0, steps=2).n_steps == 2
    said = "Read-only file system: plans and checks of stores are"
    assert lines == [f"data.store_dir {config.data.store_dir}: {said} not kept"]


def test_a_store_folder_that_cannot_be_made_is_refused_before_any_work(config, tmp_path):
    (tmp_path / "file").write_text("")
    for where in (tmp_path / "file", tmp_path / "file" / "stores"):
        with pytest.raises(UserError, match=r"^data.store_dir .*is a file; expected a folder$"):
            prepare(changed(config, data__store_dir=str(where)), log=quiet)
