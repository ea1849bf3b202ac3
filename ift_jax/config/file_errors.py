"""What a user is told when a config file, which is code of theirs, raises an exception."""

import os
import re
import traceback

from ift_jax.config.renamed_fields import explain_unknown
from ift_jax.errors import UserError, described

# What the types of fields are called.
TYPES = {
    "bool": "True or False",
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "tuple": "a tuple, such as ('a',)",
    "ConfigDict": "a section",
}
# Modules that config files import, which had other names before the package was rebuilt.
MOVED_MODULES = {
    "ift_jax.config_file": "ift_jax.config.files",
    "ift_jax.partitioning": "ift_jax.sharding",
    "tasks.sources": "ift_jax.sources",
    "tasks.preparation": "ift_jax.preparation",
}
# How ConfigDict reports that a field which is read does not exist: "'name'", within another pair
# of quotes if it has a suggestion.
_UNKNOWN_FIELD = re.compile(r"""["']?\\?'(\w+)\\?'(\\nDid you mean .*|\nDid you mean .*)?["']?$""")
# How ConfigDict reports a value of another type than the field's.
_WRONG_TYPE = re.compile(
    r"Could not override field '(\w+)' \(reference\)\. (.*) is of original type "
    r"<class '([\w.]+)'> and cannot be casted to type <class '([\w.]+)'>$",
    re.DOTALL,
)


def file_mistake(file: str, wrapped: BaseException) -> UserError:
    """Returns the one line for an exception that a config file raised.

    Args:
        file: The config file.
        wrapped: The exception, perhaps within one of config_flags.
    """
    error = _raised_by_file(wrapped)
    if isinstance(error, UserError):
        return error
    return UserError(f"{_line_in(file, error)}: {_explain(error)}")


def _explain(error: BaseException) -> str:
    """What went wrong in a config file, as a phrase for the user."""
    if isinstance(error, SyntaxError):
        return error.msg
    if isinstance(error, ModuleNotFoundError) and error.name in MOVED_MODULES:
        return f"the module {error.name} is now {MOVED_MODULES[error.name]}"
    if unknown := _UNKNOWN_FIELD.match(str(error)):
        name = unknown.group(1)
        return f"no such field {name!r}{explain_unknown(name, ())}"
    if wrong := _WRONG_TYPE.match(str(error)):
        name, value, given, wanted = wrong.groups()
        expected = TYPES.get(wanted.rpartition(".")[2], wanted)
        return f"{name}: expected {expected}; got {value!r:.80} ({given})"
    return described(error, place=False)


def _raised_by_file(error: BaseException) -> BaseException:
    """The error of a config file itself, where config_flags wraps it with a whole traceback."""
    while "Error whilst parsing config file" in str(error) and error.__context__:
        error = error.__context__
    return error


def _line_in(file: str, error: BaseException) -> str:
    """`file:line` of the last line of the file that an error passed through, else the file."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f"{error.filename}:{error.lineno}"
    path = os.path.abspath(file)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == path]
    return f"{file}:{lines[-1]}" if lines else file
