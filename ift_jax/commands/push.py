"""`ift push`.

For example:
  ift push models/mine me/mine
  ift push models/mine me/mine --private --revision trial --message "After 300 steps"

The repository is created if it does not exist. A token comes from HF_TOKEN or `hf auth login`. What
is uploaded, and where, is printed first; nothing else is sent. A README.md on the hub that differs
from the folder's is kept, unless --replace-card is given.
"""

import argparse
import re

from ift_jax.commands import arguments
from ift_jax.errors import UserError, counted, listed

_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "folder", type=arguments.local_path, metavar="FOLDER", help="a folder that ift export wrote"
    )
    parser.add_argument("name", metavar="OWNER/NAME", help="the model repository on the hub")
    parser.add_argument(
        "--private", action="store_true", help="make a private repository; default: a public one"
    )
    parser.add_argument(
        "--revision",
        default="main",
        metavar="BRANCH",
        help="the branch to upload to, created if it does not exist; default: main",
    )
    parser.add_argument(
        "--message", default="", metavar="TEXT", help="the message of the commit on the hub"
    )
    parser.add_argument(
        "--replace-card",
        action="store_true",
        help="overwrite a README.md on the hub that differs from the folder's",
    )


def run(args: argparse.Namespace) -> None:
    """Runs the command."""
    from ift_jax.interop.exported_folder import check_export, files_of
    from ift_jax.interop.hugging_face_export import CARD_FILE
    from ift_jax.io.hub_upload import Place, git_blob, open_repository, upload
    from ift_jax.version import __version__

    if not _NAME.fullmatch(args.name):
        raise UserError(f"{args.name}: expected OWNER/NAME, the name of a model on the hub")
    if not args.revision:
        raise UserError("--revision: expected the name of a branch")
    check_export(args.folder)
    files = files_of(args.folder)
    repository = open_repository(Place(args.name, args.revision, args.private))
    lines = []
    on_hub = repository.files.get(CARD_FILE)
    own = next((file for file in files if file.name == CARD_FILE), None)
    if own and on_hub and on_hub != git_blob(own.path) and not args.replace_card:
        files.remove(own)
        lines.append(f"{CARD_FILE}: the one on the hub differs and stays; --replace-card uploads")
    left = sorted(repository.files.keys() - {file.name for file in files} - {CARD_FILE})
    left = [name for name in left if not name.startswith(".")]
    if left:
        lines.append(f"on the hub and not in the folder, so they stay: {listed(left)}")

    kind = "private" if repository.is_private else "public"
    state = "" if repository.exists else ", new"
    print(f"to {repository.url} ({kind}{state}), branch {args.revision}:")
    for file in files:
        print(f"  {_size(file.n_bytes):>10}  {file.name}")
    total = sum(file.n_bytes for file in files)
    print(f"  {_size(total):>10}  in {counted(len(files), 'file')}", *lines, sep="\n", flush=True)
    message = args.message or f"Model exported by ift_jax {__version__}"
    print(upload(repository, {file.name: file.path for file in files}, message))


def _size(n_bytes: int) -> str:
    for unit, divisor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n_bytes >= divisor:
            return f"{n_bytes / divisor:.1f} {unit}"
    return f"{n_bytes} B"
