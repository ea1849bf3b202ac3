"""A folder that `ift export` wrote, checked before it is uploaded."""

import os
from typing import NamedTuple

from ift_jax.config import files as config_files
from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import from_hugging_face
from ift_jax.interop.safetensors_files import open_file, open_safetensors
from ift_jax.io.json_reader import read_json_object
from ift_jax.text.tokenizers.byt5 import is_byt5

_ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


class FolderFile(NamedTuple):
    """A file of a folder.

    Attributes:
        name: Its path in the folder, with slashes.
        path: Its path on this machine.
        n_bytes: Its size.
    """

    name: str
    path: str
    n_bytes: int


def check_export(folder: str) -> None:
    """Check that a folder holds a model or adapters, with whole files of weights and a tokenizer.

    Raises:
        UserError: It does not; says what is missing.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder; expected one that ift export wrote")
    config_file = os.path.join(folder, "config.json")
    if os.path.exists(os.path.join(folder, _ADAPTER_CONFIG)):
        read_json_object(os.path.join(folder, _ADAPTER_CONFIG))
        open_file(os.path.join(folder, _ADAPTER_WEIGHTS))
    elif os.path.exists(config_file):
        fields = read_json_object(config_file)
        if config_files.is_of_run(fields):
            raise UserError(
                f"{folder}: is the workdir of a run; export it first: ift export --workdir "
                f"{folder} --output DIR"
            )
        from_hugging_face(fields, config_file)
        open_safetensors(folder)
    else:
        raise UserError(
            f"{folder}: no config.json or {_ADAPTER_CONFIG} here; expected a folder that ift "
            "export wrote"
        )
    if not os.path.exists(os.path.join(folder, "tokenizer.json")) and not is_byt5(folder):
        raise UserError(
            f"{folder}: no tokenizer.json here; expected a folder that ift export wrote"
        )


def files_of(folder: str) -> list[FolderFile]:
    """Return the files of a folder in the order of their names, without hidden ones.

    Raises:
        UserError: One is a link to nothing.
    """
    files = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(parent, name)
            if not os.path.exists(path):
                raise UserError(f"{path}: a link to nothing")
            in_folder = os.path.relpath(path, folder).replace(os.sep, "/")
            files.append(FolderFile(in_folder, path, os.path.getsize(path)))
    return files
