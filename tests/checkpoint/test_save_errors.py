"""A checkpoint that cannot be written is one line, said as soon as it is known."""

import errno
import gc
import os
import time

import numpy as np
import pytest

from ift_jax.checkpoint.manager import Checkpoints
from ift_jax.checkpoint.save_errors import save_errors
from ift_jax.errors import WriteError
from tests.io.full_disk import files_of_at_most


def test_a_failed_save_is_raised_in_one_line_and_the_others_stay(tmp_path, capfd):
    values = np.random.default_rng(0).standard_normal(1_000_000).astype(np.float32)
    state = {"params": {"a": values, "b": values + 1, "c": values[:10]}}
    checkpoints = Checkpoints(str(tmp_path), keep=5)
    folder = tmp_path / "checkpoints"

    def failed(step, raised_by):
        with files_of_at_most(200_000), pytest.raises(WriteError) as caught:
            checkpoints.save(step, state)
            raised_by()
        return str(caught.value)

    def poll():
        for _ in range(100_000):
            checkpoints.raise_failed_save()
            time.sleep(0.001)

    too_large = "the checkpoint cannot be written: File too large"
    assert failed(1, poll) == f"{folder}/1: {too_large}; there is none before it"
    checkpoints.save(2, state)
    poll_once = checkpoints.raise_failed_save
    poll_once()
    checkpoints.wait()
    assert failed(3, checkpoints.wait) == f"{folder}/3: {too_large}; step 2 is complete"
    said = failed(4, lambda: checkpoints.save(5, state))
    assert said == f"{folder}/4: {too_large}; step 2 is complete"
    checkpoints.save(6, state)
    checkpoints.close()
    assert checkpoints.steps() == [2, 6]
    gc.collect()
    assert capfd.readouterr().err == ""  # Neither Orbax nor asyncio logs a traceback.


def test_only_errors_of_the_disk_or_the_bucket_become_a_line():
    def line(error):
        with pytest.raises(WriteError) as caught, save_errors("runs/x/checkpoints/5"):
            raise error
        return str(caught.value).removeprefix("runs/x/checkpoints/5: the checkpoint cannot be ")

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/a")
    assert line(full) == "written: No space left on device"
    of_tensorstore = ValueError(
        "RESOURCE_EXHAUSTED: Error writing 'a' in\n d/0: Failed to write [os_error_code='28']"
    )
    assert line(of_tensorstore) == "written: No space left on device"
    denied = ValueError("PERMISSION_DENIED: Error writing gs://bucket/x: HTTP 403")
    assert line(denied) == "written: PERMISSION_DENIED: Error writing gs://bucket/x: HTTP 403"
    for ours in (ValueError("shapes differ"), KeyError("params"), KeyboardInterrupt()):
        with pytest.raises(type(ours)), save_errors("x"):
            raise ours
