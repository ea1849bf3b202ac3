"""launch/tpu_vm.py when a TPU is preempted, a connection is lost, or the job fails."""

import signal

import pytest


@pytest.mark.parametrize("queued", [False, True])
def test_a_preempted_spot_tpu_is_created_again_until_the_job_is_done(cloud, queued):
    gone = "SUSPENDED" if queued else "PREEMPTED"
    lost = {"states": [gone], "signals": {0: signal.SIGKILL}, "drop": True}
    going = {**lost, "states": ["SUSPENDING", gone]} if queued else lost
    cloud.scenario(states=["ABSENT"], follow=[lost, going])
    # The first two tries are still running when the host goes away; the third runs to its end.
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


def test_exit_0_after_a_signal_is_not_the_end(cloud):
    """Told of a preemption, every host saves and exits with 0 before the state shows it."""
    told = {"signals": {1: signal.SIGTERM}, "states": ["READY", "READY", "PREEMPTED"], "ready": 2}
    cloud.scenario(states=["ABSENT"], hosts=2, follow=[told])
    # Host 1 gets the signal, and host 0 ends with it, as with JAX's preemption notice.
    program = (
        f"echo x >>{cloud.base}/tries; [ $(wc -l <{cloud.base}/tries) -le 2 ] || exit 0;"
        f"trap 'touch {cloud.base}/notice; exit 0' TERM; touch {cloud.base}/ready.$$;"
        f"until [ -e {cloud.base}/notice ]; do sleep 0.05; done"
    )
    result = cloud.run("--spot", "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "the job ended: exited 0, terminated 0" in result.stdout
    once = ["create", "scp", "set up", "start", "follow"]
    assert [verb for verb in cloud.verbs() if verb != "follow"] == [
        *once[:-1],
        "delete",
        *once[:-1],
    ]


def test_a_job_that_fails_is_not_started_again(cloud):
    result = cloud.run("--spot", "--", "bash", "-c", "echo wrong config; exit 3")
    assert result.returncode == 1
    assert "wrong config" in result.stdout
    assert "the job ended: exited 3" in result.stdout
    assert result.stderr.startswith("error: the job failed;") and result.stderr.count("\n") == 1
    assert cloud.verbs() == ["create", "scp", "set up", "start", "follow"]  # No "delete".


def test_delete_also_deletes_after_a_failure(cloud):
    assert cloud.run("--delete", "--", "false").returncode == 1
    assert cloud.verbs()[-1] == "delete"


def test_a_failing_peer_with_a_preempted_host_is_an_interruption(cloud):
    """A lost peer makes a job fail some time before the state shows the preemption."""
    later = {"states": ["READY", "READY", "PREEMPTED"]}
    cloud.scenario(states=["ABSENT"], follow=[later])
    program = f"[ -e {cloud.base}/again ] || {{ touch {cloud.base}/again; exit 1; }}"
    result = cloud.run("--spot", "--", "bash", "-c", program)
    assert result.returncode == 0, result.stdout + result.stderr
    assert cloud.verbs().count("create") == 2


def test_after_a_dropped_connection_the_log_continues_where_it_was(cloud):
    cloud.scenario(states=["ABSENT"], follow=[{}, {"drop": True}])
    program = "echo first; sleep 0.5; echo last"
    result = cloud.run("--", "bash", "-c", program)
    assert result.returncode == 0, result.stderr
    assert [line for line in result.stdout.splitlines() if line in ("first", "last")] == [
        "first",
        "last",
    ]
    assert cloud.verbs().count("start") == 1


def test_the_same_command_line_finds_the_running_job(cloud):
    """A lost network does not mean that the job failed, so nothing is deleted."""
    program = f"until [ -e {cloud.base}/go ]; do sleep 0.05; done; echo finished"
    away = ["Network is unreachable"] * 99
    # The first look at the state and the first three connections succeed.
    fail = {"describe": ["", *away], "ssh": ["", "", "", *away]}
    cloud.scenario(states=["READY"], fail=fail)
    lost = cloud.run("--delete", "--", "bash", "-c", program)
    assert lost.returncode == 1 and "may still be running and costing money" in lost.stderr
    assert "delete" not in cloud.verbs()
    (cloud.base / "go").touch()
    cloud.scenario(states=["READY"])
    found = cloud.run("--", "bash", "-c", program)
    assert found.returncode == 0, found.stderr
    assert "finished" in found.stdout


def test_missing_capacity_is_an_error_at_first_and_waited_for_after_a_preemption(cloud):
    full = 'There is no more capacity in the zone "us-west4-a"'
    cloud.scenario(states=["ABSENT"], fail={"create": [full]})
    result = cloud.run("--spot", "--", "true")
    assert result.returncode == 1 and "--queued waits for capacity" in result.stderr
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


def test_gives_up_after_max_restarts(cloud):
    lost = {"states": ["PREEMPTED"], "signals": {0: signal.SIGKILL}, "drop": True}
    cloud.scenario(states=["ABSENT"], follow=[lost] * 9)
    result = cloud.run("--spot", "--max-restarts=2", "--", "sleep", "60")
    assert result.returncode == 1 and "gave up after 2 restarts" in result.stderr
    assert cloud.verbs().count("start") == 3
