"""The notebooks of the documentation, and a kernel without Jupyter that runs them.

    python -m tests.docs.notebooks FOLDER

runs all of them in FOLDER and writes what each one prints into FOLDER/NAME.txt. Jupyter's own way
(nbclient with ipykernel) would add 37 packages and 100 MB to the tests, and start a process for
each notebook that imports JAX and TensorFlow again. The cells are plain Python, but for
`%%writefile`.
"""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from tests.docs.pages import REPO

NOTEBOOKS = sorted((REPO / "docs" / "notebooks").glob("*.ipynb"))
_WRITE_FILE = "%%writefile "


def read(path: Path) -> dict[str, Any]:
    """The JSON of a notebook."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def execute(path: Path) -> None:
    """Run the code cells of a notebook in the working folder, in one namespace."""
    names = {"__name__": "__main__"}
    for number, cell in enumerate(read(path)["cells"]):
        if cell["cell_type"] != "code":
            continue
        text = "".join(cell["source"])
        if text.startswith(_WRITE_FILE):
            head, _, body = text.partition("\n")
            Path(head.removeprefix(_WRITE_FILE)).write_text(body, encoding="utf-8")
        else:
            exec(compile(text, f"{path.name}, cell {number}", "exec"), names)


def main(folder: str) -> None:
    """Run all notebooks in a folder."""
    os.chdir(folder)
    sys.path.insert(0, folder)  # As Jupyter has a notebook's folder.
    for path in NOTEBOOKS:
        with open(f"{path.stem}.txt", "w", encoding="utf-8") as file:
            with contextlib.redirect_stdout(file):
                execute(path)


if __name__ == "__main__":
    main(sys.argv[1])
