"""Files on this machine, or in a bucket (`gs://`): no locks, renames or appending there.

What a bucket holds is read and written whole; what is mapped or appended to is worked on in a local
copy. The client is that of etils: TensorFlow's, where it is installed.
"""

import atexit
import functools
import importlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

from ift_jax.errors import UserError

# What is small in a run's workdir and in a tokenizer's folder, and is read by whoever opens it.
_SMALL = (".json", ".jinja", ".model")


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is not one of this machine."""
    return "://" in os.fspath(path)


def place(path: str | os.PathLike[str]) -> Path:
    """A path, local or in a bucket; a UserError for another file system's."""
    text = os.fspath(path)
    if not is_remote(text):
        return Path(text)
    if not text.startswith("gs://") or not text[5:].strip("/"):
        raise UserError(f"{text}: expected a local path or gs://BUCKET/PATH")
    from etils import epath

    return epath.Path(text)  # type: ignore[return-value]  # All that is used of it is the same.


def absolute(path: str) -> str:
    """What names the same file from any folder."""
    return path if is_remote(path) else os.path.abspath(path)


def check_bucket(path: str, *, writes: bool = False) -> None:
    """Asks once for what a run needs of a path's bucket; nothing for a local path.

    Raises:
        UserError: the extra is missing, or the bucket is, or it may not be read (`writes`: or
            written), with what the service said.
    """
    if is_remote(path):
        _ask(path, writes)


@functools.cache
def _ask(path: str, writes: bool) -> None:
    bucket_name, _, folder = str(place(path)).removeprefix("gs://").partition("/")
    try:
        storage = importlib.import_module("google.cloud.storage")
        api = importlib.import_module("google.api_core.exceptions")
        auth = importlib.import_module("google.auth.exceptions")
    except ImportError:  # It is Orbax that needs it, and says so only when it saves.
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
    """Whether something is there; UserError as `check_bucket`."""
    check_bucket(path)
    return place(path).exists()


def fetch(folder: str, target: str, suffixes: tuple[str, ...] = _SMALL) -> None:
    """Copies the files with these endings that are in a folder (not below it)."""
    for file in place(folder).iterdir() if place(folder).is_dir() else ():
        if file.name.endswith(suffixes):
            os.makedirs(target, exist_ok=True)
            Path(target, file.name).write_bytes(file.read_bytes())


class Workdir:
    """A run's workdir: `local` is itself, or of one in a bucket a copy without the checkpoints.

    The copy holds what a reader wants, for one who `writes` also what a run appends to; it goes
    with the process. UserError as `check_bucket`.
    """

    def __init__(self, path: str, *, writes: bool = False):
        self.path = self.local = absolute(path)
        self._pushes = writes and is_remote(path)
        if not is_remote(path):
            return
        check_bucket(path, writes=writes)
        self.local = tempfile.mkdtemp(prefix="ift_jax-")
        atexit.register(shutil.rmtree, self.local, ignore_errors=True)
        fetch(path, self.local, (*_SMALL, ".jsonl") if writes else _SMALL)
        fetch(os.path.join(path, "tokenizer"), os.path.join(self.local, "tokenizer"))
        self._pushed = self._stats()

    def _stats(self) -> dict[Path, tuple[int, int]]:
        files = [path for path in Path(self.local).rglob("*") if path.is_file()]
        return {file: (file.stat().st_size, file.stat().st_mtime_ns) for file in files}

    def push(self) -> None:
        """Writes what has changed in the copy to the bucket, each file whole; readers: nothing."""
        if not self._pushes:
            return
        now = self._stats()
        changed = [file for file in now if now[file] != self._pushed.get(file)]
        # What makes it a run's workdir comes last.
        for file in sorted(changed, key=lambda file: file.name == "config.json"):
            target = place(self.path) / str(file.relative_to(self.local))
            target.write_bytes(file.read_bytes())
        self._pushed = now
