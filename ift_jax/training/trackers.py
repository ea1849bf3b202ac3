"""Experiment trackers: what `metrics.jsonl` holds, handed to their own libraries.

Each tracker is an extra package that is imported only where `train.track` names it. Nothing leaves
the machine unless the user has set the tracker up for that: Weights & Biases runs offline without a
key, MLflow writes into the workdir without MLFLOW_TRACKING_URI, and Trackio writes into its own
folder in the user's cache. This package itself reports nothing to anybody.
"""

import abc
import contextlib
import importlib
import math
import netrc
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from ift_jax.config.files import flat
from ift_jax.errors import UserError
from ift_jax.io.files import json_bytes, write_atomically
from ift_jax.io.json_reader import read_json_object

PROJECT = "ift_jax"  # Where the user's environment names no other.
# The run's name at each tracker, by which a resumed run goes on in the same one.
IDS_FILE = "trackers.json"
_STEP = "step"  # The horizontal axis of all metrics at Weights & Biases.
_MOST_PARAMS = 100  # MLflow takes so many parameters at a time.
_LONGEST_PARAM = 500  # Characters.


class Closable(Protocol):
    """What is open while a run writes."""

    def close(self, *, failed: bool = False) -> None:
        """End the run there, which is told if an error ended it."""


class Tracker(abc.ABC):
    """A run at one tracker.

    Attributes:
        id: What the tracker calls the run.
    """

    id: str

    @abc.abstractmethod
    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Hand over finite numbers of a step."""

    @abc.abstractmethod
    def close(self, *, failed: bool = False) -> None:
        """End the run at the tracker, which is told if an error ended it."""


def open_trackers(
    names: Sequence[str], workdir: str, config: Mapping[str, Any], *, resumes: bool
) -> list[Tracker]:
    """Open the trackers of a run.

    A run that resumes goes on in its own runs at the trackers. A run that starts at step 0 begins
    new ones, also where the folder holds the names of an earlier attempt: its steps come again, and
    a tracker would drop or double them.

    Args:
        names: Keys of `TRACKERS`.
        workdir: The local folder of the run's files.
        config: The run's config as nested plain values.
        resumes: Whether the run goes on from a checkpoint.

    Raises:
        UserError: The package of a tracker is not installed, the tracker refuses the run, or the
            names of the run at the trackers cannot be read.
    """
    if not names:
        return []
    path = os.path.join(workdir, IDS_FILE)
    ids = _read_ids(path) if resumes and os.path.exists(path) else {}
    modules = {name: _package(name) for name in names}
    trackers: list[Tracker] = []
    with closed_on_failure(trackers):
        for name, module in modules.items():
            trackers.append(TRACKERS[name](module, workdir, config, ids.get(name)))
            ids[name] = trackers[-1].id
        write_atomically(Path(path), json_bytes(ids))
    return trackers


@contextlib.contextmanager
def closed_on_failure(opened: Sequence[Closable | None]) -> Iterator[None]:
    """Close what a run writes if an error ends the block, so that its trackers show it as failed.

    That error is raised; one of closing is only told.

    Args:
        opened: What to close; the block may add to it.
    """
    try:
        yield
    except BaseException:
        for one in filter(None, opened):
            try:
                one.close(failed=True)
            except Exception as error:
                print(f"warning: a tracker was not closed: {error}", file=sys.stderr)
        raise


def _read_ids(path: str) -> dict[str, str]:
    ids = read_json_object(path)
    for name, run_id in ids.items():
        if not isinstance(run_id, str):
            raise UserError(f"{path}: {name}: is {run_id!r}, expected the run's name as text")
    return ids


def check_installed(names: Sequence[str]) -> None:
    """Check that the package of each tracker can be imported.

    Raises:
        UserError: One cannot; names the extra to install.
    """
    for name in names:
        _package(name)


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            f"config.train.track: {name} is not installed ({error}); run launch/setup.sh {name}"
        ) from error


def run_name(workdir: str) -> str:
    """Return the name of a run: that of its workdir."""
    return os.path.basename(os.path.normpath(workdir))


class WandbTracker(Tracker):
    """Weights & Biases. `wandb sync` uploads what an offline run wrote into `<workdir>/wandb`."""

    def __init__(
        self, wandb: ModuleType, workdir: str, config: Mapping[str, Any], known_id: str | None
    ):
        """Begin or resume the run."""
        mode = None if os.environ.get("WANDB_MODE") or _has_wandb_key() else "offline"
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=run_name(workdir),
                dir=workdir,
                config=dict(config),
                id=known_id,
                resume="allow",
                mode=mode,
            )
            # Its own step may only grow: it would ignore the scores of an earlier checkpoint.
            self._run.define_metric(_STEP, hidden=True)
            self._run.define_metric("*", step_metric=_STEP)
        except wandb.errors.Error as error:
            raise UserError(f"config.train.track: wandb: {error}") from error
        self.id = self._run.id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, _STEP: step})

    def close(self, *, failed: bool = False) -> None:
        self._run.finish(exit_code=int(failed))


def _has_wandb_key() -> bool:
    """Whether the user has logged in to Weights & Biases on this machine."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    return False


class MlflowTracker(Tracker):
    """MLflow; `mlflow ui --backend-store-uri <workdir>/mlflow` shows a run of a local folder."""

    def __init__(
        self, mlflow: ModuleType, workdir: str, config: Mapping[str, Any], known_id: str | None
    ):
        """Begin or resume the run."""
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            # A folder can be read wherever the workdir goes. Newer versions of MLflow ask for this
            # consent, because their new features are in databases alone.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = Path(workdir, "mlflow").absolute().as_uri()
        client = importlib.import_module("mlflow.tracking").MlflowClient(tracking_uri=uri)
        self._client = client
        try:
            if known_id and self._has(known_id, mlflow):
                client.update_run(known_id, status="RUNNING")
                self.id = known_id
            else:
                name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
                experiment = client.get_experiment_by_name(name)
                experiment_id = (
                    experiment.experiment_id if experiment else client.create_experiment(name)
                )
                run = client.create_run(experiment_id, run_name=run_name(workdir))
                self.id = run.info.run_id
                self._log_params(config)
        except mlflow.exceptions.MlflowException as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"config.train.track: mlflow at {uri}: {reason}") from error

    def _has(self, run_id: str, mlflow: ModuleType) -> bool:
        """Whether the run is there: not if the workdir is in a bucket, or the server is another."""
        try:
            self._client.get_run(run_id)
        except mlflow.exceptions.MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return True

    def _log_params(self, config: Mapping[str, Any]) -> None:
        entities = importlib.import_module("mlflow.entities")
        params = [
            entities.Param(name, str(value)[:_LONGEST_PARAM])
            for name, value in flat(config).items()
        ]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(self.id, params=params[start : start + _MOST_PARAMS])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._client.log_metric(self.id, name, value, step=step)

    def close(self, *, failed: bool = False) -> None:
        self._client.set_terminated(self.id, status="FAILED" if failed else "FINISHED")


class TrackioTracker(Tracker):
    """Trackio; `trackio show --project ift_jax` shows the runs."""

    def __init__(
        self, trackio: ModuleType, workdir: str, config: Mapping[str, Any], known_id: str | None
    ):
        """Begin or resume the run."""
        # Trackio finds a run to resume by its name alone, which two workdirs may share.
        self.id = known_id or f"{run_name(workdir)}-{secrets.token_hex(4)}"
        try:
            trackio.init(
                project=os.environ.get("TRACKIO_PROJECT", PROJECT),
                name=self.id,
                config=dict(flat(config)),
                resume="allow" if known_id else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        except ValueError as error:
            raise UserError(f"config.train.track: trackio: {error}") from error
        self._trackio = trackio

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._trackio.log(dict(values), step=step)

    def close(self, *, failed: bool = False) -> None:
        del failed  # It has no such state.
        self._trackio.finish()


# Each is called with its package, the workdir, the config and the id that it had before.
TRACKERS: dict[str, Callable[[ModuleType, str, Mapping[str, Any], str | None], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}


def finite(scalars: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers among values, without NaN and infinity, which trackers do not take."""
    return {
        name: float(value)
        for name, value in scalars.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }
