"""launch/tpu_vm.py against a stand-in for gcloud whose hosts really run what they are sent."""

import json
import signal
import subprocess
import sys
import tarfile

import pytest

from tests.launch.fakes import AWKWARD, ROOT, Cloud, launch

WHERE = ["--project=my-project-1", "--zone=us-west4-a", "--quiet"]
# Writes its arguments where the test finds them.
ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
# Says so when it was told to save, as `ift train` does, and exits with 0.
SAVES = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"


@pytest.fixture
def cloud(tmp_path):
    cloud = Cloud(tmp_path)
    yield cloud
    cloud.close()


def test_creates_copies_sets_up_starts_and_follows(cloud):
    result = cloud.run("--spot", "--", *ECHO, "hello")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow"]
    (create,) = (call for call in cloud.calls() if call[3] == "create")
    assert create == [
        "compute", "tpus", "tpu-vm", "create", "sft", "--accelerator-type=v5litepod-16",
        "--version=v2-alpha-tpuv5-lite", "--spot", *WHERE,
    ]  # fmt: skip
    assert '["hello"]' in result.stdout.splitlines()


def test_every_argument_arrives_as_it_was_typed(cloud):
    result = cloud.run("--env=A=b $c 'd'", "--", *ECHO, *AWKWARD, "--", "--zone")
    assert json.dumps([*AWKWARD, "--", "--zone"]) in result.stdout.splitlines()
    program = "import os; print(os.environ['A'])"
    cloud.scenario(states=["READY"])
    result = cloud.run("--env=A=b $c 'd'", "--", sys.executable, "-c", program)
    assert "b $c 'd'" in result.stdout.splitlines()


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


def test_files_that_left_the_checkout_leave_the_hosts_and_others_stay(cloud):
    assert cloud.run("--", "true").returncode == 0
    home = cloud.base / "host0" / "ift_jax"
    for name in ("old module.py", "kept.txt"):
        (home / name).write_text("")
    with (home / ".unpacked").open("a") as list_of_files:
        list_of_files.write("old module.py\n")
    assert cloud.run("--", "true").returncode == 0
    assert not (home / "old module.py").exists()
    assert (home / "kept.txt").exists()


def test_queued_slices_with_all_options(cloud):
    cloud.scenario(states=["ABSENT"], hosts=4, slices=2)
    result = cloud.run(
        "--slices=2", "--reserved", "--runtime-version=v2-x", "--network=net", "--subnetwork=sub",
        "--service-account=sa@my-project-1.iam.gserviceaccount.com", "--no-external-ips",
        "--label=team=nlp", "--label=run=1", "--tunnel-through-iap", "--delete", "--", "true",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow", "delete"]
    calls = {call[3]: call for call in cloud.calls()}
    assert calls["create"] == [
        "compute", "tpus", "queued-resources", "create", "sft", "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-x", "--node-count=2", "--node-prefix=sft", "--reserved",
        "--service-account=sa@my-project-1.iam.gserviceaccount.com", "--network=net",
        "--subnetwork=sub", "--internal-ips", "--labels=team=nlp,run=1", *WHERE,
    ]  # fmt: skip
    everywhere = ["--worker=all", "--node=all", "--tunnel-through-iap", *WHERE]
    assert calls["scp"][4:] == [calls["scp"][4], "sft:ift_jax.tar.gz", *everywhere]
    assert calls["ssh"][4:] == [
        "sft", "--command=bash ift_jax/launch/worker.sh status sft", *everywhere,
    ]  # fmt: skip
    assert calls["delete"][4:] == ["sft", "--force", *WHERE]
    assert len(list(cloud.base.glob("host*/ift_jobs/sft/log"))) == 0  # Deleted with the hosts.


def test_one_queued_slice_has_a_node_id_and_iap_to_a_tpu_vm_is_alpha(cloud):
    result = cloud.run("--queued", "--spot", "--", "true")
    assert result.returncode == 0, result.stderr
    (create,) = (call for call in cloud.calls() if call[3] == "create")
    assert "--node-id=sft" in create and "--spot" in create
    cloud.scenario(states=["READY"])
    assert cloud.run("--tunnel-through-iap", "--", "true").returncode == 0
    assert cloud.calls()[-1][:5] == ["alpha", "compute", "tpus", "tpu-vm", "ssh"]


@pytest.mark.parametrize("queued", [False, True])
def test_a_preempted_spot_tpu_is_made_anew_until_the_job_is_done(cloud, queued):
    gone = "SUSPENDED" if queued else "PREEMPTED"
    lost = {"states": [gone], "signals": {0: signal.SIGKILL}, "drop": True}
    going = {**lost, "states": ["SUSPENDING", gone]} if queued else lost
    cloud.scenario(states=["ABSENT"], follow=[lost, going])
    # The first two are still at it when the host goes away; the third comes to the end.
    program = f"echo x >>{cloud.base}/tries; [ $(wc -l <{cloud.base}/tries) = 3 ] || sleep 60"
    result = cloud.run("--spot", *(["--queued"] if queued else []), "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    once = ["create", "scp", "set up", "start", "follow"]
    assert cloud.verbs() == [*once, "delete", *once, "delete", *once]
    assert result.stdout.count("the job was interrupted") == 2


def test_without_spot_a_preempted_tpu_is_not_deleted(cloud):
    cloud.scenario(states=["PREEMPTED"])
    result = cloud.run("--", "true")
    assert result.returncode == 1
    assert "sft is PREEMPTED and will not become ready" in result.stderr
    assert cloud.verbs() == []


def test_exit_0_after_a_signal_is_no_end(cloud):
    """On notice of a preemption every host saves and exits with 0, before the state says so."""
    told = {"signals": {1: signal.SIGTERM}, "states": ["READY", "READY", "PREEMPTED"]}
    cloud.scenario(states=["ABSENT"], hosts=2, follow=[told])
    # Host 1 is told; host 0 ends with it, as through JAX's preemption notice.
    program = (
        f"echo x >>{cloud.base}/tries; [ $(wc -l <{cloud.base}/tries) -le 2 ] || exit 0;"
        f"trap 'touch {cloud.base}/notice; exit 0' TERM;"
        f"until [ -e {cloud.base}/notice ]; do sleep 0.05; done"
    )
    result = cloud.run("--spot", "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the job ended: exited 0, terminated 0" in result.stdout
    once = ["create", "scp", "set up", "start", "follow"]
    assert [verb for verb in cloud.verbs() if verb != "follow"] == [
        *once[:-1], "delete", *once[:-1],
    ]  # fmt: skip


def test_a_job_that_fails_is_not_started_again(cloud):
    result = cloud.run("--spot", "--", "bash", "-c", "echo wrong config; exit 3")
    assert result.returncode == 1
    assert "wrong config" in result.stdout
    assert "the job ended: exited 3" in result.stdout
    assert result.stderr.startswith("error: the job failed;") and result.stderr.count("\n") == 1
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow"]  # And not deleted.


def test_deletes_after_a_failure_where_asked(cloud):
    assert cloud.run("--delete", "--", "false").returncode == 1
    assert cloud.verbs()[-1] == "delete"


def test_a_failing_peer_with_a_preempted_host_is_an_interruption(cloud):
    """A peer's loss makes a job fail some time before the state shows the preemption."""
    later = {"states": ["READY", "READY", "PREEMPTED"]}
    cloud.scenario(states=["ABSENT"], follow=[later])
    program = f"[ -e {cloud.base}/again ] || {{ touch {cloud.base}/again; exit 1; }}"
    result = cloud.run("--spot", "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert cloud.verbs().count("create") == 2


def test_a_dropped_connection_is_taken_up_where_it_was(cloud):
    cloud.scenario(states=["ABSENT"], follow=[{}, {"drop": True}])
    program = "echo first; sleep 0.5; echo last"
    result = cloud.run("--", "bash", "-c", program)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line in ("first", "last")] == [
        "first",
        "last",
    ]
    assert cloud.verbs().count("start") == 1


def test_the_same_line_finds_the_running_job(cloud):
    """Where the network goes away nobody knows that the job failed: it is not deleted."""
    program = f"until [ -e {cloud.base}/go ]; do sleep 0.05; done; echo finished"
    away = ["Network is unreachable"] * 99
    # The first look at the state and the first three connections are answered.
    fail = {"describe": ["", *away], "ssh": ["", "", "", *away]}
    cloud.scenario(states=["READY"], fail=fail)
    lost = cloud.run("--delete", "--", "bash", "-c", program)
    assert lost.returncode == 1 and "may go on, and costs" in lost.stderr
    assert "delete" not in cloud.verbs()
    (cloud.base / "go").touch()
    cloud.scenario(states=["READY"])
    found = cloud.run("--", "bash", "-c", program)
    assert found.returncode == 0, found.stderr
    assert "finished" in found.stdout


def test_another_command_under_the_same_name_is_refused(cloud):
    cloud.scenario(states=["READY"], follow=[{"drop": True}])
    environment = {"HOME": str(cloud.base / "host0")}
    worker = ROOT / "launch" / "worker.sh"
    subprocess.run(
        [worker, "start", "sft", "bash", "-c", SAVES], env=environment | {"PATH": "/usr/bin:/bin"}
    )
    (cloud.base / "host0" / "ift_jax").symlink_to(ROOT)
    result = cloud.run("--", "true")
    assert result.returncode == 1
    assert "the job sft runs another command" in result.stderr
    assert cloud.tpu("status").stdout.endswith("running\n")
    stopped = cloud.tpu("stop")
    assert stopped.returncode == 0 and "sft: stopped 0" in stopped.stdout
    assert cloud.tpu("status").stdout.endswith("stopped 0\n")


def test_a_tpu_of_another_shape_is_refused_and_never_deleted(cloud):
    cloud.scenario(states=["READY"], accelerator="v5litepod-256")
    result = cloud.run("--spot", "--delete", "--", "true")
    assert result.returncode == 1
    assert "sft exists with 1 of v5litepod-256, and 1 of v5litepod-16 is asked for" in result.stderr
    assert cloud.verbs() == []


def test_a_stopped_tpu_is_started(cloud):
    cloud.scenario(states=["STOPPED"])
    assert cloud.run("--", "true").returncode == 0
    assert cloud.verbs() == ["start", "scp", "set up", "start", "follow"]


def test_a_refused_request_is_one_line(cloud):
    quota = "RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepod' has been exceeded. Limit: 0"
    cloud.scenario(states=["ABSENT"], fail={"create": [quota]})
    result = cloud.run("--", "true")
    assert result.returncode == 1
    assert result.stderr.startswith("error: could not create sft: gcloud exited with 1: ERROR")
    assert quota in result.stderr and result.stderr.count("\n") == 1


def test_no_room_is_said_at_first_and_waited_for_after_a_preemption(cloud):
    full = 'There is no more capacity in the zone "us-west4-a"'
    cloud.scenario(states=["ABSENT"], fail={"create": [full]})
    result = cloud.run("--spot", "--", "true")
    assert result.returncode == 1 and "--queued waits until there is room" in result.stderr
    lost = {"states": ["PREEMPTED"], "signals": {0: signal.SIGKILL}, "drop": True}
    cloud.scenario(states=["ABSENT"], follow=[lost], fail={"create": ["", full, full]})
    program = f"[ -e {cloud.base}/again ] || {{ touch {cloud.base}/again; sleep 60; }}"
    result = cloud.run("--spot", "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("trying again") == 2


def test_a_failed_queued_resource_is_an_error_at_first(cloud):
    cloud.scenario(states=["ABSENT"], after_create=["ACCEPTED", "FAILED"])
    result = cloud.run("--queued", "--spot", "--delete", "--", "true")
    assert result.returncode == 1 and "sft is FAILED" in result.stderr
    assert cloud.verbs() == ["create", "delete"]


def test_gives_up_after_the_restarts_that_were_allowed(cloud):
    lost = {"states": ["PREEMPTED"], "signals": {0: signal.SIGKILL}, "drop": True}
    cloud.scenario(states=["ABSENT"], follow=[lost] * 9)
    result = cloud.run("--spot", "--max-restarts=2", "--", "sleep", "60")
    assert result.returncode == 1 and "given up after 2 restarts" in result.stderr
    assert cloud.verbs().count("start") == 3


def test_dry_run_prints_commands_for_a_shell_and_calls_nothing(cloud):
    result = cloud.run("--spot", "--delete", "--dry-run", "--", "ift", *AWKWARD)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == []
    commands = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    assert all(line.startswith("gcloud compute tpus tpu-vm ") for line in commands)
    # Given to a shell, they are the calls that a run makes.
    cloud.scenario(states=["ABSENT"])
    script = result.stdout.replace("sleep", "true")
    (cloud.base / "ift_jax.tar.gz").write_bytes(b"")
    subprocess.run(
        ["bash", "-c", script], cwd=cloud.base, capture_output=True,
        env={"PATH": f"{cloud.bin}:/usr/bin:/bin", "FAKE_GCLOUD": str(cloud.base)},
    )  # fmt: skip
    pasted = cloud.calls()
    (cloud.base / "calls.jsonl").unlink()
    cloud.scenario(states=["ABSENT"])
    cloud.run("--spot", "--delete", "--", "ift", *AWKWARD)
    starts = [
        [call for call in calls if any("worker.sh start" in word for word in call)]
        for calls in (pasted, cloud.calls())
    ]
    assert starts[0] == starts[1] and len(starts[0]) == 1
    verbs = [call[3] for call in pasted]
    assert verbs == "describe create describe ssh scp ssh ssh ssh ssh delete".split()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--accelerator-type=v5p"], "'v5p' is not VERSION-SIZE"),
        (["--accelerator-type=tpu7x-8"], "launch/xpk.py"),
        (["--accelerator-type=v5p-8; rm"], "is not VERSION-SIZE"),
        (["--zone=us west"], "is not a zone"),
        (["--project=$(id)"], "is not a project's id"),
        (["--service-account=me"], "is not a service account"),
        (["--label=A=B"], "is not KEY=VALUE"),
        (["--env=1A=b"], "is not of the form NAME=VALUE"),
        (["--slices=0"], "at least 1"),
        (["--spot", "--reserved"], "not allowed with"),
    ],
)
def test_what_was_typed_is_checked_before_anything_runs(cloud, arguments, said):
    result = cloud.run(*arguments, "--", "true")
    assert result.returncode == 2 and said in result.stderr
    assert cloud.calls() == []


def test_a_bad_name_no_command_and_a_bad_wheel(cloud):
    bad = launch(
        "tpu_vm.py", "delete", "-x;y", "--project=my-project-1", "--zone=us-west4-a", path=cloud.bin
    )
    assert bad.returncode == 2
    bare = cloud.run()
    assert bare.returncode == 2 and "no command" in bare.stderr
    cloud.scenario(states=["READY"])
    wheel = cloud.run("--wheel=nothing.whl", "--", "true")
    assert wheel.returncode == 1 and "nothing.whl is not a .whl file" in wheel.stderr


def test_a_wheel_goes_with_configs_and_launch_alone(cloud):
    wheel = cloud.base / "ift_jax-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    result = cloud.run(f"--wheel={wheel}", "--", "true")
    assert result.returncode == 0, result.stderr
    home = cloud.base / "host0" / "ift_jax"
    assert (home / wheel.name).read_bytes() == b"wheel"
    assert (home / "configs" / "tulu3_8b.py").exists() and (home / "pyproject.toml").exists()
    assert not (home / "ift_jax").exists()
    (set_up,) = (call[5] for call in cloud.calls() if "tar -x" in "".join(call))
    assert set_up.endswith(f"WHEEL={wheel.name} bash launch/worker.sh setup tpu gcs")


def test_says_that_a_workdir_on_the_hosts_is_lost(cloud):
    local = cloud.run("--spot", "--dry-run", "--", "ift", "train", "--workdir", "runs/x")
    assert "runs/x is on the hosts' own disks; a preemption loses it" in local.stdout
    bucket = cloud.run("--spot", "--dry-run", "--", "ift", "train", "--workdir=gs://b/x")
    assert "own disks" not in bucket.stdout


def test_delete_and_status_of_what_is_not_there(cloud):
    assert cloud.tpu("status").stdout == "sft is not there\n"
    assert cloud.tpu("delete").returncode == 0
    assert cloud.verbs() == []
    cloud.scenario(states=["READY"])
    assert cloud.tpu("delete", "--dry-run").stdout.splitlines() == [
        "# deleting sft",
        "gcloud compute tpus tpu-vm delete sft --project=my-project-1 --zone=us-west4-a --quiet",
    ]
    assert cloud.tpu("delete").returncode == 0
    assert cloud.verbs() == ["delete"]


def test_without_gcloud(tmp_path):
    arguments = ["status", "sft", "--project=my-project-1", "--zone=us-west4-a"]
    result = subprocess.run(
        [sys.executable, ROOT / "launch" / "tpu_vm.py", *arguments],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: gcloud is not on PATH: install the Google Cloud CLI")
