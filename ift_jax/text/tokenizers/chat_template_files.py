"""The chat template in a tokenizer's folder; several with names become one that chooses.

`transformers` takes the template named "tool_use" for a conversation with tools, if there is one,
and "default" for any other. One template that does the same is the same everywhere: in the examples
of a run, in its prompts and in what it exports.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ift_jax.io.files import read_template_file
from ift_jax.io.json_reader import read_json_object
from ift_jax.io.typed_fields import NULL, TEXT, Kind, TypedFields, list_of

FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
_DEFAULT, _TOOLS = "default", "tool_use"
_TAG = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")


def _is_named(entry: Any) -> bool:
    """Whether an item of a list of chat templates has a name and a template."""
    is_text = TEXT.accepts
    return isinstance(entry, dict) and all(is_text(entry.get(key)) for key in ("name", "template"))


_NAMED = Kind("an object of a name and a template", _is_named)
_TEMPLATES = TEXT | NULL | list_of(_NAMED)


def read_chat_template(folder: str) -> str:
    """Read the chat template in a tokenizer's folder; "" if there is none.

    Files win over `tokenizer_config.json`, as in `transformers`.

    Args:
        folder: The folder.

    Raises:
        UserError: A file is not what it should be; names it.
    """
    files = {path.stem: path for path in sorted(Path(folder, FOLDER).glob("*.jinja"))}
    if os.path.exists(path := os.path.join(folder, FILE)):
        files[_DEFAULT] = Path(path)
    if files:
        return one_template({name: read_template_file(str(path)) for name, path in files.items()})
    path = os.path.join(folder, "tokenizer_config.json")
    fields = read_json_object(path) if os.path.exists(path) else {}
    template = TypedFields(fields, path).get("chat_template", _TEMPLATES, None) or ""
    if isinstance(template, list):
        return one_template({entry["name"]: entry["template"] for entry in template})
    return template


def one_template(templates: Mapping[str, str]) -> str:
    """Return one template that does what the named one for a conversation does.

    Args:
        templates: The Jinja text of each, by name; not empty.

    Returns:
        The text of "default" where it is alone or nothing but templates for other uses, such as
        "rag", stand beside it. A template that raises an error where none is to be taken.
    """
    default, with_tools = templates.get(_DEFAULT), templates.get(_TOOLS)
    names = ", ".join(sorted(templates))
    if default is None:
        default = _raising(
            f"the model's chat templates are {names}, and none is named {_DEFAULT}; set"
            " format.template to a .jinja file"
        )
        if with_tools is None:
            return default
    elif with_tools is None:
        return default
    elif bool(_TAG.search(default)) != bool(_TAG.search(with_tools)):
        # A template must mark either all answers or none.
        return _choosing(
            default,
            _raising(
                f"of the chat templates {_DEFAULT} and {_TOOLS} one alone has generation tags; set"
                " format.template to a .jinja file"
            ),
        )
    return _choosing(default, with_tools)


def _raising(message: str) -> str:
    return "{{ raise_exception('" + message.replace("'", "") + "') }}"


def _choosing(default: str, with_tools: str) -> str:
    """Return a template that is one of two, by whether there are tools.

    The newline after a tag is taken away, and so each begins a line, as it does by itself. The
    empty outputs keep the tags behind them from taking the blanks at an end.
    """
    ends = [re.sub(r"\r?\n\Z", "", text) + "{{ '' }}" for text in (with_tools, default)]
    return "{% if tools %}\n" + ends[0] + "{% else %}\n" + ends[1] + "{% endif %}"
