"""The checkout that a launcher belongs to, and the archive of it that goes to other machines."""

import subprocess
import tarfile
from pathlib import Path

from command_runner import CommandRunner, LaunchError

ROOT = Path(__file__).resolve().parents[1]
# These parts of the checkout go along with a wheel, which holds only `ift_jax`. launch/setup.sh
# reads the versions of the packages from launch/ and the extras from pyproject.toml.
BESIDE_A_WHEEL = ("configs/", "launch/", "tasks/", "pyproject.toml")


def files_to_ship(wheel: Path | None) -> list[str]:
    """List the files of the checkout that another machine needs, relative to its root.

    Without a wheel that is everything that git does not ignore.

    Raises:
        LaunchError: This is not a git checkout, or a name cannot be listed line by line there.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        raise LaunchError(f"{ROOT} is not a git checkout: {listed.stderr.strip()}")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    if wheel:
        names = [name for name in names if name.startswith(BESIDE_A_WHEEL)]
    if any("\n" in name for name in names):
        raise LaunchError("a file of the checkout has a line break in its name")
    return names


def pack(archive: Path, wheel: Path | None, runner: CommandRunner) -> None:
    """Write the archive for another machine: the checkout, or a wheel and what belongs beside it.

    Raises:
        LaunchError: The wheel is not one, or the checkout cannot be listed.
    """
    if wheel and (wheel.suffix != ".whl" or not wheel.is_file()):
        raise LaunchError(f"--wheel: {wheel} is not a .whl file")
    names = files_to_ship(wheel)
    runner.note(f"packing {len(names)} files" + (f" and {wheel}" if wheel else ""))
    if runner.dry_run:
        return
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for name in names:
            tar.add(ROOT / name, name)
        if wheel:
            tar.add(wheel, wheel.name)
