"""The tokenizer of a run, in files."""

from pathlib import Path

from ift_jax.config import Config
from ift_jax.text.tokenizers import Tokenizer, load_tokenizer
from tasks.preparation.storage import cache, is_remote, place, write


def load(config: Config, path: str) -> Tokenizer:
    """The tokenizer in a file, as the run uses it."""
    section = config.tokenizer
    return load_tokenizer(_local(path), section.extra_ids, section.added_tokens)


def _local(path: str) -> str:
    """The path; of a tokenizer that was trained beside stores in a bucket, a copy's."""
    if not is_remote(path):
        return path
    # The folder's name says what is in it, so a copy stays right.
    copy = cache() / "tokenizers" / place(path).parent.name / place(path).name
    if not copy.exists():
        write(copy, place(path).read_bytes())
    return str(copy)


def tokenizer_files(path: str) -> list[str]:
    """The absolute paths of the files that `load_tokenizer(path)` may read."""
    if is_remote(path):
        return []  # It is named by what is in it.
    given = Path(path).absolute()
    folder, files = (given, given.glob("*.model")) if given.is_dir() else (given.parent, [given])
    names = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")
    beside = [file for name in (*names, "chat_template.jinja") for file in folder.glob(name)]
    return sorted({str(file) for file in (*files, *beside)})
