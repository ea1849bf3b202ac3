"""Which steps can be traced; test_run_files.py reads a trace back."""

import jax
import pytest

from ift_jax.errors import UserError, WriteError
from ift_jax.training.goodput import Goodput
from ift_jax.training.profile import Profile, check_profile
from tests.training import in_process


@pytest.fixture
def process(monkeypatch):
    return in_process.InProcess(monkeypatch)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--profile", "9:11"], "--profile 9:11: the run has steps 1 to 10; expected steps among"),
        (["--profile", "3:4", "--dry-run"], "--profile: expected a run; --dry-run trains no step"),
        *(
            (
                ["--profile", text],
                f"--profile: expected FIRST:LAST, two steps from 1 such as 10:13; got '{text}'",
            )
            for text in ("13:10", "0:3", "3", "3:", "a:b", "1:2:3", "-1:3", "1:" + "9" * 30)
        ),
    ],
)
def test_steps_that_the_run_does_not_have_are_refused_before_it_begins(
    process, tmp_path, capsys, flags, expected
):
    workdir = tmp_path / "W"
    assert process.train(workdir, flags=["=".join(flags[:2]), *flags[2:]]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not workdir.exists()


def test_what_is_done_already_is_said():
    steps = range(10, 14)
    assert check_profile(steps, 0, 13) == check_profile(steps, 9, 20) == ""
    assert "10 to 10 are done already" in check_profile(steps, 10, 20)
    assert "nothing is traced" in check_profile(steps, 13, 20)
    with pytest.raises(UserError, match="steps 1 to 12"):
        check_profile(steps, 12, 12)


def test_a_trace_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    workdir = str(tmp_path / "file")
    profile = Profile(range(1, 2), workdir, Goodput(), print)
    with profile.step(1, jax.numpy.ones(1)):
        pass
    with pytest.raises(WriteError, match=f"^{workdir}/tensorboard: "):
        profile.end_step(1, jax.numpy.ones(1))
