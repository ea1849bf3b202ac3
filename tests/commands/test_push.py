"""`ift push` uploads an exported folder to a hub: here a server on this machine."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from ift_jax.commands.main import main
from ift_jax.interop import verify_export
from tests import fake_hub
from tests.small_models import write_workdir


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("push")
    workdir = write_workdir(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        # Importing transformers takes seconds, and other tests of exports do it.
        patch.setattr(verify_export, "check_in_transformers", lambda *_: None)
        assert main(["export", "--workdir", workdir, "--output", str(folder / "mine")]) == 0
    return folder / "mine"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip(
        "huggingface_hub.constants", reason="the extra hf is not installed"
    )
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    with fake_hub.serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
        yield hub


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_export_is_uploaded_and_what_goes_where_is_printed(exported, hub):
    # In a process of its own, where the package reads its settings from the environment.
    command = [sys.executable, "-m", "ift_jax.commands.main", "push", str(exported), "me/mine"]
    variables = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    process = subprocess.run(
        [*command, "--private", "--message", "First"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert process.stderr == ""
    printed = process.stdout
    assert hub.created == {"me/mine": True}
    assert hub.pushed["me/mine"]["main"] == files(exported)
    assert hub.messages == ["First"]
    assert f"to {hub.endpoint}/me/mine (private, new), branch main:\n" in printed
    size = (exported / "model.safetensors").stat().st_size
    assert f"  {size / 1000:>7.1f} kB  model.safetensors\n" in printed
    assert f"in {len(files(exported))} files\n" in printed
    assert printed.endswith(f"{hub.endpoint}/me/mine/commit/{fake_hub.COMMIT}\n")
    # Nothing but this upload: no telemetry, no look-up of the user.
    assert {request.split("/api/")[-1].split("?")[0] for request in hub.requests} == {
        "models/me/mine",
        "repos/create",
        "validate-yaml",
        "models/me/mine/preupload/main",
        "POST /me/mine.git/info/lfs/objects/batch",
        *(f"PUT /lfs/{oid}" for oid in hub.blobs),
        "models/me/mine/commit/main",
    }


def test_a_card_on_the_hub_stays_and_so_does_what_the_folder_lacks(exported, hub, capsys):
    hub.created["me/mine"] = False
    there = {
        "README.md": b"---\nlicense: mit\n---\n",
        "old.safetensors": b"",
        ".gitattributes": b"",
    }
    hub.pushed["me/mine"] = {"main": dict(there)}
    assert main(["push", str(exported), "me/mine"]) == 0
    printed = capsys.readouterr().out
    assert "README.md: the one on the hub differs and stays; --replace-card uploads" in printed
    assert "not in the folder, so they stay: old.safetensors\n" in printed
    assert "(public), branch main:" in printed and "kB  README.md" not in printed
    assert hub.pushed["me/mine"]["main"] == {**files(exported), **there}
    assert main(["push", str(exported), "me/mine", "--replace-card"]) == 0
    assert "stays;" not in capsys.readouterr().out
    assert hub.pushed["me/mine"]["main"]["README.md"] == (exported / "README.md").read_bytes()
    assert main(["push", str(exported), "me/mine"]) == 0  # The same card is no difference.
    assert "stays;" not in capsys.readouterr().out


def test_another_branch_is_made(exported, hub):
    hub.created["me/mine"] = False
    hub.pushed["me/mine"] = {"main": {}}
    assert main(["push", str(exported), "me/mine", "--revision", "trial/2"]) == 0
    assert hub.pushed["me/mine"] == {"main": {}, "trial/2": files(exported)}
    assert main(["push", str(exported), "me/new", "--revision", "trial"]) == 0
    assert hub.pushed["me/new"]["trial"] == files(exported)


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("forbidden/mine", [], "forbidden/mine: the token may not write there (You are not in"),
        ("me/public", ["--private"], "me/public: is there and public; --private is for a new"),
        ("me/broken", [], "me/broken: the hub refuses with status 418: I am a teapot"),
        ("mine", [], "mine: expected OWNER/NAME, the name of a model on the hub"),
        ("me/mine", ["--revision", ""], "--revision: expected the name of a branch"),
    ],
)
def test_what_the_hub_refuses_is_one_line(exported, hub, capsys, name, flags, expected):
    hub.created["me/public"] = False
    assert main(["push", str(exported), name, *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {expected}") and error.count("\n") == 1
    assert hub.messages == [] and list(hub.created) == ["me/public"]


def test_no_token_a_wrong_one_no_network_and_no_package(exported, hub, monkeypatch, capsys):
    from huggingface_hub import constants

    def refused(*args):
        assert main(["push", str(exported), "me/mine", *args]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "me/mine: the hub does not know the token (Invalid credentials in" in refused()
    monkeypatch.delenv("HF_TOKEN")
    hub.requests.clear()
    assert "no token of the Hugging Face hub here: run hf auth login, or set HF_TOKEN" in refused()
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "me/mine: HF_HUB_OFFLINE is set; unset it to upload" in refused()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert hub.requests == []
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "me/mine: the hub (http://127.0.0.1:9) cannot be reached: " in refused()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "huggingface_hub is not installed" in (error := refused()) and "setup.sh hf" in error


def test_only_an_export_is_uploaded(exported, hub, tmp_path, capsys):
    def refused(folder):
        assert main(["push", str(folder), "me/mine"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "no such folder; expected one that ift export wrote" in refused(tmp_path / "none")
    assert "is the workdir of a run; export it first" in refused(exported.parent / "run")
    assert "no config.json or adapter_config.json here" in refused(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(exported, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-4])
    assert f"{broken}/model.safetensors" in refused(broken)
    (broken / "model.safetensors").write_bytes(weights)
    (broken / "more").symlink_to("nowhere")
    assert f"{broken}/more: a link to nothing" in refused(broken)
    (broken / "tokenizer.json").unlink()
    assert "no tokenizer.json here" in refused(broken)
    (broken / "adapter_config.json").write_text("[]")
    assert "adapter_config.json" in refused(broken)
    (broken / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert f"{broken}/adapter_model.safetensors" in refused(broken)
    assert hub.requests == [] and hub.created == {}
