"""launch/tpu_vm.py with a stand-in for gcloud whose hosts run what they are sent."""

import json
import subprocess
import sys

import pytest

from tests.launch.fakes import AWKWARD, ROOT, launch

WHERE = ["--project=my-project-1", "--zone=us-west4-a", "--quiet"]
# Prints its arguments into the log.
ECHO = [sys.executable, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))"]
# Saves on SIGTERM and exits with 0, as `ift train` does.
SAVES = "trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.05; done"


def test_creates_copies_sets_up_starts_and_follows(cloud):
    result = cloud.run("--spot", "--", *ECHO, "hello")
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow"]
    (create,) = (call for call in cloud.calls() if call[3] == "create")
    assert create == [
        "compute",
        "tpus",
        "tpu-vm",
        "create",
        "sft",
        "--accelerator-type=v5litepod-16",
        "--version=v2-alpha-tpuv5-lite",
        "--spot",
        *WHERE,
    ]
    assert '["hello"]' in result.stdout.splitlines()


def test_every_argument_arrives_as_typed(cloud):
    result = cloud.run("--env=A=b $c 'd'", "--", *ECHO, *AWKWARD, "--", "--zone")
    assert json.dumps([*AWKWARD, "--", "--zone"]) in result.stdout.splitlines()
    program = "import os; print(os.environ['A'])"
    cloud.scenario(states=["READY"])
    result = cloud.run("--env=A=b $c 'd'", "--", sys.executable, "-c", program)
    assert "b $c 'd'" in result.stdout.splitlines()


def test_queued_slices_with_all_options(cloud):
    cloud.scenario(states=["ABSENT"], hosts=4, slices=2)
    result = cloud.run(
        "--slices=2",
        "--reserved",
        "--runtime-version=v2-x",
        "--network=net",
        "--subnetwork=sub",
        "--service-account=sa@my-project-1.iam.gserviceaccount.com",
        "--no-external-ips",
        "--label=team=nlp",
        "--label=run=1",
        "--tag=ssh",
        "--tag=nlp",
        "--scope=cloud-platform",
        "--data-disk=corpus:read-only",
        "--data-disk=projects/p/zones/z/disks/more:read-only",
        "--gcloud-flag=--metadata=a=b c",
        "--gcloud-flag=--shielded-secure-boot",
        "--tunnel-through-iap",
        "--delete",
        "--",
        "true",
    )
    assert result.returncode == 0, result.stderr
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow", "delete"]
    calls = {call[3]: call for call in cloud.calls()}
    assert calls["create"] == [
        "compute",
        "tpus",
        "queued-resources",
        "create",
        "sft",
        "--accelerator-type=v5litepod-16",
        "--runtime-version=v2-x",
        "--node-count=2",
        "--node-prefix=sft",
        "--reserved",
        "--data-disk=source=projects/my-project-1/zones/us-west4-a/disks/corpus,mode=read-only",
        "--data-disk=source=projects/p/zones/z/disks/more,mode=read-only",
        "--service-account=sa@my-project-1.iam.gserviceaccount.com",
        "--network=net",
        "--subnetwork=sub",
        "--internal-ips",
        "--labels=team=nlp,run=1",
        "--tags=ssh,nlp",
        "--scopes=cloud-platform",
        "--metadata=a=b c",
        "--shielded-secure-boot",
        *WHERE,
    ]
    everywhere = ["--worker=all", "--node=all", "--tunnel-through-iap", *WHERE]
    assert calls["scp"][4:] == [calls["scp"][4], "sft:ift_jax.tar.gz", *everywhere]
    assert calls["ssh"][4:] == [
        "sft",
        "--command=bash ift_jax/launch/worker.sh status sft",
        *everywhere,
    ]
    assert calls["delete"][4:] == ["sft", "--force", *WHERE]
    assert (
        len(list(cloud.base.glob("host*/ift_jobs/sft/log"))) == 0
    )  # They were deleted with the hosts.


def test_one_queued_slice_has_a_node_id_and_iap_to_a_tpu_vm_is_alpha(cloud):
    result = cloud.run("--queued", "--spot", "--", "true")
    assert result.returncode == 0, result.stderr
    (create,) = (call for call in cloud.calls() if call[3] == "create")
    assert "--node-id=sft" in create and "--spot" in create
    cloud.scenario(states=["READY"])
    assert cloud.run("--tunnel-through-iap", "--", "true").returncode == 0
    assert cloud.calls()[-1][:5] == ["alpha", "compute", "tpus", "tpu-vm", "ssh"]


@pytest.mark.parametrize("queued", [False, True])
def test_a_reservation_by_name_needs_the_alpha_commands(cloud, queued):
    flags = ["--queued"] if queued else []
    result = cloud.run("--reservation=spring", *flags, "--data-disk=d:read-only", "--", "true")
    assert result.returncode == 0, result.stderr
    (create,) = (call for call in cloud.calls() if "create" in call)
    assert create[0] == "alpha" and "--reservation=spring" in create
    assert [call[0] for call in cloud.calls() if "create" not in call] == ["compute"] * (
        len(cloud.calls()) - 1
    )


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
    assert "job sft is already running another command" in result.stderr
    assert cloud.tpu("status").stdout.endswith("running\n")
    stopped = cloud.tpu("stop")
    assert stopped.returncode == 0 and "sft: stopped 0" in stopped.stdout
    assert cloud.tpu("status").stdout.endswith("stopped 0\n")


def test_a_tpu_of_another_shape_is_refused_and_never_deleted(cloud):
    cloud.scenario(states=["READY"], accelerator="v5litepod-256")
    result = cloud.run("--spot", "--delete", "--", "true")
    assert result.returncode == 1
    assert (
        "sft exists with 1 x v5litepod-256, not with 1 x v5litepod-16 as requested" in result.stderr
    )
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


def test_dry_run_prints_commands_for_a_shell_and_calls_nothing(cloud):
    result = cloud.run("--spot", "--delete", "--dry-run", "--", "ift", *AWKWARD)
    assert result.returncode == 0, result.stderr
    assert cloud.calls() == []
    commands = [line for line in result.stdout.splitlines() if not line.startswith("#")]
    assert all(line.startswith("gcloud compute tpus tpu-vm ") for line in commands)
    # In a shell, they make the calls that a run makes.
    cloud.scenario(states=["ABSENT"])
    script = result.stdout.replace("sleep", "true")
    (cloud.base / "ift_jax.tar.gz").write_bytes(b"")
    subprocess.run(
        ["bash", "-c", script],
        cwd=cloud.base,
        capture_output=True,
        env={"PATH": f"{cloud.bin}:/usr/bin:/bin", "FAKE_GCLOUD": str(cloud.base)},
    )
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
        (["--accelerator-type=v6e-7"], "the nearest are v6e-4 and v6e-8"),
        (["--accelerator-type=v5e-8"], "'v5e-8': it is called v5litepod-8"),
        (["--data-disk=d"], "several hosts can only read a disk: d:read-only"),
        (["--reservation=a", "--spot"], "not allowed with"),
        (["--gcloud-flag=metadata"], "is not a flag"),
        (["--serv=x"], "unrecognized arguments: --serv=x"),
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
def test_arguments_are_checked_before_anything_runs(cloud, arguments, said):
    result = cloud.run(*arguments, "--", "true")
    assert result.returncode == 2 and said in result.stderr
    assert cloud.calls() == []


def test_a_bad_name_no_command_and_a_bad_wheel(cloud):
    bad = launch(
        "tpu_vm.py", "delete", "-x;y", "--project=my-project-1", "--zone=us-west4-a", path=cloud.bin
    )
    assert bad.returncode == 2
    more = cloud.tpu("status", "--", "--quiet")
    assert more.returncode == 2 and "--quiet: nothing is run here" in more.stderr
    bare = cloud.run()
    assert bare.returncode == 2 and "no command" in bare.stderr
    cloud.scenario(states=["READY"])
    wheel = cloud.run("--wheel=nothing.whl", "--", "true")
    assert wheel.returncode == 1 and "nothing.whl is not a .whl file" in wheel.stderr


def test_warns_that_a_workdir_on_the_hosts_is_lost(cloud):
    local = cloud.run("--spot", "--dry-run", "--", "ift", "train", "--workdir", "runs/x")
    assert "runs/x is on the hosts' own disks; a preemption loses it" in local.stdout
    bucket = cloud.run("--spot", "--dry-run", "--", "ift", "train", "--workdir=gs://b/x")
    assert "own disks" not in bucket.stdout


def test_delete_and_status_of_a_tpu_that_does_not_exist(cloud):
    assert cloud.tpu("status").stdout == "sft does not exist\n"
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
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("error: gcloud is not on PATH: install the Google Cloud CLI")
