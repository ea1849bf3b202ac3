"""The tokenizer of a run, in files."""

from pathlib import Path

from ift_jax.config import Config
from ift_jax.storage import is_remote
from ift_jax.text.tokenizers import Tokenizer, load_tokenizer


def load(config: Config, path: str) -> Tokenizer:
    """The tokenizer in a file, as the run uses it."""
    section = config.tokenizer
    return load_tokenizer(path, section.extra_ids, section.added_tokens)


def tokenizer_files(path: str) -> list[str]:
    """The absolute paths of the files that `load_tokenizer(path)` may read."""
    if is_remote(path):
        return []  # One trained here is named by what is in it; of a given one that is asked.
    given = Path(path).absolute()
    folder, files = (given, given.glob("*.model")) if given.is_dir() else (given.parent, [given])
    names = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")
    beside = [file for name in (*names, "chat_template.jinja") for file in folder.glob(name)]
    return sorted({str(file) for file in (*files, *beside)})
