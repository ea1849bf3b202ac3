"""Paths on this machine or in a bucket (`gs://`).

A bucket has no locks, no renames, and no appending. Its files are read and written whole; a file
that is memory-mapped or appended to is worked on in a local copy. The client is that of etils,
which uses TensorFlow's if TensorFlow is installed.
"""

import atexit
import contextlib
import functools
import importlib
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ift_jax.errors import UserError, WriteError
from ift_jax.io.temporary import is_temporary
from ift_jax.io.write_errors import write_errors

_DELETION_SECONDS = 1  # Deleting a workdir may take so long; some writes fail before it is gone.
# Small files in a run's workdir and in a tokenizer's folder that every reader needs.
_SMALL = (".json", ".jinja", ".model")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is not one of this machine."""
    return "://" in os.fspath(path)


def as_path(path: str | os.PathLike[str]) -> Path:
    """A local path, or one in a bucket with the same methods.

    Raises:
        UserError: the path is of another remote file system.
    """
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    if not text.startswith("gs://") or not text[5:].strip("/"):
        raise UserError(f"{text}: expected a local path or gs://BUCKET/PATH")
    from etils import epath

    return epath.Path(text)  # type: ignore[return-value]  # It has the methods that are used.


def absolute(path: str) -> str:
    """A path that means the same from any working folder."""
    return path if is_remote(path) else os.path.abspath(path)


def displayed(path: str) -> str:
    """A path as short as a command takes it: relative if it is below the working folder."""
    if is_remote(path):
        return path
    relative = os.path.relpath(path)
    return path if relative.split(os.sep)[0] == os.pardir else relative


def check_bucket(path: str, *, writes: bool = False) -> None:
    """Checks that the bucket of a path can be used; does nothing for a local path.

    Args:
        path: a local path or one in a bucket. Each is checked once per process.
        writes: whether the run writes to it.

    Raises:
        UserError: the extra package is missing, the bucket does not exist, or it may not be read
            (or written); with what the service said.
    """
    if is_remote(path):
        _check_bucket_once(path, writes)


def why_bucket_not_writable(path: str) -> str:
    """Why the bucket of a path cannot be written; "" if it can.

    TensorFlow's client would try a refused write again for minutes. Where the package that can ask
    is not installed, the bucket is taken for writable.
    """
    try:
        importlib.import_module("google.cloud.storage")
    except ImportError:
        return ""
    try:
        check_bucket(path, writes=True)
    except UserError as error:
        return str(error)
    return ""


@functools.cache
def _check_bucket_once(path: str, writes: bool) -> None:
    bucket_name, _, folder = str(as_path(path)).removeprefix("gs://").partition("/")
    try:
        storage = importlib.import_module("google.cloud.storage")
        api = importlib.import_module("google.api_core.exceptions")
        auth = importlib.import_module("google.auth.exceptions")
    except ImportError:
        # Orbax needs it, but says so only when it saves the first checkpoint.
        raise UserError(
            f"{path}: a run in a bucket needs google-cloud-storage: run launch/setup.sh gcs"
        ) from None
    try:
        bucket = storage.Client().get_bucket(bucket_name)
        next(iter(bucket.list_blobs(prefix=folder, max_results=1)), None)
        if writes:
            name = f".writable-{socket.gethostname()}-{os.getpid()}"
            probe = bucket.blob(os.path.join(folder, name))
            probe.upload_from_string(b"")
            probe.delete()
    except (api.GoogleAPIError, auth.GoogleAuthError, OSError) as error:
        why = " ".join(str(error).split())[:300]
        raise UserError(f"{path}: the bucket cannot be used: {why}") from error
    if bucket.hierarchical_namespace_enabled:
        raise UserError(f"{path}: expected a bucket without hierarchical namespace")


def exists(path: str) -> bool:
    """Whether there is a file or folder.

    Raises:
        UserError: as `check_bucket`.
    """
    check_bucket(path)
    return as_path(path).exists()


def fetch(folder: str, target: str, suffixes: tuple[str, ...] = _SMALL) -> None:
    """Copies the files in a folder (not below it) that end with one of the suffixes."""
    source = as_path(folder)
    if not source.is_dir():
        return
    for file in source.iterdir():
        if file.name.endswith(suffixes):
            os.makedirs(target, exist_ok=True)
            Path(target, file.name).write_bytes(file.read_bytes())


class Workdir:
    """A run's workdir on this machine, or a local copy of one in a bucket.

    A copy has the files that a reader needs and, for a process that writes, those that a run
    appends to; checkpoints are not in it. It is removed when the process ends.

    Attributes:
        path: the workdir, absolute.
        local: the folder to read and write in: the workdir itself, or its copy.
    """

    def __init__(self, path: str, *, writes: bool = False):
        """Opens a workdir; copies it if it is in a bucket.

        Args:
            path: the workdir.
            writes: whether `push` will write changes back to the bucket.

        Raises:
            UserError: as `check_bucket`.
        """
        self.path = absolute(path)
        self.local = self.path
        self._watched: int | None = None
        self._pushes = writes and is_remote(path)
        if not is_remote(path):
            return
        check_bucket(path, writes=writes)
        self.local = tempfile.mkdtemp(prefix="ift_jax-")
        atexit.register(shutil.rmtree, self.local, ignore_errors=True)
        fetch(path, self.local, (*_SMALL, ".jsonl") if writes else _SMALL)
        fetch(os.path.join(path, "tokenizer"), os.path.join(self.local, "tokenizer"))
        self._pushed = self._stats()

    def watch(self) -> None:
        """Remembers the workdir, which exists by now, so that `check` notices if it is gone."""
        if not is_remote(self.path):
            # While it is open, no other folder gets its number.
            self._watched = os.open(self.path, os.O_RDONLY)

    def check(self, *, asks_bucket: bool = True) -> None:
        """Checks that a watched workdir is still where it was; called before writing to it.

        A file that is open can be written even if it was deleted, and Orbax makes folders that are
        missing, so a run would end well and leave nothing behind that can be used.

        Args:
            asks_bucket: whether to look at a workdir in a bucket as well, which takes a request.

        Raises:
            UserError: the workdir was deleted, moved or replaced.
        """
        if self._watched is None and not (is_remote(self.path) and asks_bucket):
            return
        is_there = as_path(os.path.join(self.path, "config.json")).exists()
        if is_there and self._watched is not None:
            with contextlib.suppress(FileNotFoundError):  # It may go at any moment.
                is_there = os.path.samestat(os.fstat(self._watched), os.stat(self.path))
        if not is_there:
            raise UserError(
                f"--workdir {self.path}: was deleted, moved or replaced while the run was writing "
                "there; what it wrote is lost"
            )

    @contextlib.contextmanager
    def deletion_named(self) -> Iterator[None]:
        """Says that a watched workdir was deleted if the block fails because of that.

        Raises:
            UserError: as `check`.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, UserError) and not isinstance(error, WriteError):
                raise
            for _ in range(_DELETION_SECONDS * 10):
                self.check(asks_bucket=False)
                time.sleep(0.1)
            raise

    def _stats(self) -> dict[Path, tuple[int, int]]:
        """Size and time of change of every file in the copy, but those that a thread is writing."""
        stats = {}
        for file in Path(self.local).rglob("*"):
            if not is_temporary(file) and file.is_file():
                stat = file.stat()
                stats[file] = (stat.st_size, stat.st_mtime_ns)
        return stats

    def push(self) -> None:
        """Writes the files that have changed in a copy to the bucket, each as a whole.

        Does nothing for a local workdir, or for a reader.

        Raises:
            WriteError: The bucket takes no file.
        """
        if not self._pushes:
            return
        now = self._stats()
        changed = [file for file in now if now[file] != self._pushed.get(file)]
        # config.json makes the folder the workdir of a run, so it comes last.
        for file in sorted(changed, key=lambda file: file.name == "config.json"):
            target = as_path(self.path) / str(file.relative_to(self.local))
            with write_errors(target):
                target.write_bytes(file.read_bytes())
        self._pushed = now
