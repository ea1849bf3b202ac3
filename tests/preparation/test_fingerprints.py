"""What a store was made from: a change of it gives the store another key."""

import shutil
from pathlib import Path

import ift_jax
from ift_jax.preparation import fingerprints

PACKAGE = Path(ift_jax.__file__).resolve().parent


def test_a_change_of_any_file_that_determines_a_store_changes_its_key(tmp_path, monkeypatch):
    copy = tmp_path / "ift_jax"
    shutil.copytree(PACKAGE, copy, ignore=lambda _, names: [n for n in names if n == "__pycache__"])
    monkeypatch.setattr(fingerprints, "_PACKAGE", copy)
    determining = [copy / "data" / "store.py", copy / "data" / "randomness.py"]
    for room in ("text", "sources", "preparation"):
        determining += (copy / room).rglob("*.py")
    folders = {str(file.parent.relative_to(copy)) for file in determining}
    assert {"text/chat_templates", "text/tokenizers", "sources", "preparation"} <= folders
    key = fingerprints.our_code()
    assert key == fingerprints.our_code()
    for file in determining:
        content = file.read_bytes()
        file.write_bytes(content + b"# changed\n")
        assert fingerprints.our_code() != key, file
        file.write_bytes(content)
    assert fingerprints.our_code() == key
    # The optimizer has no part in what a store holds.
    (copy / "training" / "optimizer.py").write_text("")
    assert fingerprints.our_code() == key


def test_a_folder_with_a_link_to_nothing_has_a_hash(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    before = fingerprints.tree_digest(str(tmp_path), "")
    (tmp_path / ".#rows.jsonl").symlink_to("editor@host.1")
    assert fingerprints.tree_digest(str(tmp_path), "") != before
