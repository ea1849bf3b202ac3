"""Uploading files to a model repository of the Hugging Face hub, through `huggingface_hub`.

The package's telemetry is switched off: nothing else goes to the hub.
"""

import contextlib
import hashlib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ift_jax.errors import UserError

MAIN = "main"  # The branch that every repository has.
_SECONDS = 30.0  # The hub is asked about a repository for so long.
_SHOWN = 300  # Characters of a reason.


class Place(NamedTuple):
    """Where files go.

    Attributes:
        name: The repository, OWNER/NAME.
        branch: Its branch.
        private: Whether the repository must be private.
    """

    name: str
    branch: str
    private: bool


class Repository(NamedTuple):
    """A model repository as the hub knows it.

    Attributes:
        place: What was asked for.
        api: The client.
        url: The repository's address.
        exists: Whether it is there.
        is_private: Whether it is private, or will be.
        has_branch: Whether the branch is there.
        files: The name of each file on the branch, or of the one that it will begin from -> its git
            blob.
    """

    place: Place
    api: Any
    url: str
    exists: bool
    is_private: bool
    has_branch: bool
    files: dict[str, str]


def open_repository(place: Place) -> Repository:
    """Ask the hub about a repository; change nothing.

    Raises:
        UserError: The package or a token is missing, the hub cannot be reached or refuses, or the
            repository is there and public although it must be private.
    """
    hub = _package()
    token = hub.get_token()
    if not token:
        raise UserError(
            "no token of the Hugging Face hub here: run hf auth login, or set HF_TOKEN, with a "
            "token that may write"
        )
    endpoint = importlib.import_module("huggingface_hub.constants").ENDPOINT
    api = hub.HfApi(endpoint=endpoint, token=token)
    url = f"{api.endpoint}/{place.name}"
    errors = importlib.import_module("huggingface_hub.errors")
    with _one_line(place, api.endpoint):
        try:
            info = api.model_info(place.name, timeout=_SECONDS, files_metadata=True)
        except errors.RepositoryNotFoundError:
            return Repository(place, api, url, False, place.private, place.branch == MAIN, {})
        has_branch = True
        if place.branch != MAIN:
            try:
                info = api.model_info(
                    place.name, revision=place.branch, timeout=_SECONDS, files_metadata=True
                )
            except errors.RevisionNotFoundError:
                has_branch = False
    if place.private and not info.private:
        raise UserError(
            f"{place.name}: is there and public; --private is for a new repository, so make that "
            f"one private at {url}/settings, or name another one"
        )
    files = {file.rfilename: file.blob_id or "" for file in info.siblings or []}
    return Repository(place, api, url, True, bool(info.private), has_branch, files)


def upload(repository: Repository, files: Mapping[str, str], message: str) -> str:
    """Upload files in one commit; make the repository and the branch if they are not there.

    Args:
        repository: The repository.
        files: The name of each file on the branch -> its path here.
        message: The message of the commit.

    Returns:
        The address of the commit.

    Raises:
        UserError: The hub cannot be reached or refuses, or a file cannot be read.
    """
    place, api = repository.place, repository.api
    hub = _package()
    if not sys.stderr.isatty():
        importlib.import_module("huggingface_hub.utils").disable_progress_bars()
    with _one_line(place, api.endpoint):
        if not repository.exists:
            api.create_repo(place.name, private=place.private, exist_ok=True)
        if not repository.has_branch:
            api.create_branch(place.name, branch=place.branch, exist_ok=True)
        operations = [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
            for name, path in files.items()
        ]
        commit = api.create_commit(
            place.name, operations, commit_message=message, revision=place.branch
        )
    return str(commit.commit_url)


def git_blob(path: str) -> str:
    """Return git's hash of a small file, by which the hub knows it."""
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _package() -> Any:
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # It is read on import.
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(
            f"huggingface_hub is not installed ({error}); run launch/setup.sh hf"
        ) from error


@contextlib.contextmanager
def _one_line(place: Place, endpoint: str) -> Iterator[None]:
    """Turn whatever the package and its network raise into a line that says what to do."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{place.name}: {_reason(error, endpoint)}") from error


def _reason(error: BaseException, endpoint: str) -> str:
    errors = importlib.import_module("huggingface_hub.errors")
    # What failed in a thread of an upload is the cause of what the package raises.
    while error.__cause__ is not None and not isinstance(error, errors.HfHubHTTPError):
        error = error.__cause__
    said = " ".join(str(error).split())[:_SHOWN] or type(error).__name__
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set; unset it to upload"
    if not isinstance(error, errors.HfHubHTTPError):
        is_answer = isinstance(error, ValueError)  # The package, or a bad card, raises it.
        return said if is_answer else f"the hub ({endpoint}) cannot be reached: {said}"
    status = error.response.status_code
    said = " ".join((error.server_message or said).split())[:_SHOWN]
    if status == 401:
        return f"the hub does not know the token ({said}); run hf auth login, or set HF_TOKEN"
    if status == 403:
        return f"the token may not write there ({said})"
    return f"the hub refuses with status {status}: {said}"
