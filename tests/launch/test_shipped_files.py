"""What the launchers copy to other machines, which have to run recipes of configs/ and tasks/."""

import subprocess
import tarfile

from tests.launch.fakes import ROOT


def test_the_checkout_arrives_without_what_git_ignores(cloud):
    assert cloud.run("--", "true").returncode == 0
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    with tarfile.open(cloud.base / "host0" / "ift_jax.tar.gz") as tar:
        assert tracked <= set(tar.getnames())
        assert not any("__pycache__" in name for name in tar.getnames())
    home = cloud.base / "host0" / "ift_jax"
    assert (home / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


def test_files_deleted_in_the_checkout_are_deleted_on_the_hosts_and_others_stay(cloud):
    assert cloud.run("--", "true").returncode == 0
    home = cloud.base / "host0" / "ift_jax"
    for name in ("old module.py", "kept.txt"):
        (home / name).write_text("")
    with (home / ".unpacked").open("a") as list_of_files:
        list_of_files.write("old module.py\n")
    assert cloud.run("--", "true").returncode == 0
    assert not (home / "old module.py").exists()
    assert (home / "kept.txt").exists()


def test_a_wheel_goes_with_configs_tasks_and_launch(cloud):
    """The wheel holds `ift_jax` alone; recipes and systems belong to the checkout."""
    wheel = cloud.base / "ift_jax-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    result = cloud.run(f"--wheel={wheel}", "--", "true")
    assert result.returncode == 0, result.stderr
    home = cloud.base / "host0" / "ift_jax"
    assert (home / wheel.name).read_bytes() == b"wheel"
    for folder in ("configs", "tasks", "launch"):
        listed = subprocess.run(
            ["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True
        )
        names = [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
        assert names and all((home / name).is_file() for name in names)
    assert (home / "pyproject.toml").exists()
    assert not (home / "ift_jax").exists()
    (set_up,) = (call[5] for call in cloud.calls() if "tar -x" in "".join(call))
    assert set_up.endswith(f"WHEEL={wheel.name} bash launch/worker.sh setup tpu gcs")


def test_a_job_runs_in_the_folder_with_tasks_and_configs(cloud):
    result = cloud.run("--", "ls", "-d", "configs", "tasks")
    assert result.returncode == 0, result.stderr
    assert {"configs", "tasks"} <= set(result.stdout.splitlines())
