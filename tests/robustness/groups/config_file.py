"""Config files in Python, YAML and JSON, and overrides of their fields."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import ODD_VALUES, spoiled_json

_FIELDS: dict[str, dict[str, Any]] = {
    "data": {"mixture": "m", "max_length": 64, "modules": ["a", "b"]},
    "tokenizer": {"path": "t.model", "added_tokens": ["<|x|>"]},
    "train": {"steps": 10, "batch_size": 8, "gradient_accumulation_steps": 2},
    "optimizer": {"learning_rate": 1e-4, "name": "adamw", "clip_norm": 1.0},
    "model": {"d_model": 32, "n_heads": 4, "n_kv_heads": 2, "head_dim": 8, "dropout": 0.1},
    "mesh": {"data": 1, "fsdp": -1},
    "format": {"template": "chatml"},
    "evaluation": {"stop_ids": [1, 2]},
}
# What a person's config file may do by mistake.
_STATEMENTS = (
    "1 / 0", "raise ValueError('a\\nb')", "raise SystemExit(3)", "import nothing_of_this_name",
    "config.train.stepz = 3", "config.trian.steps = 3", "config.train = 5", "config.data = None",
    "config.data.modules = (1,)", "config.data.modules = 'a'", "config.train.steps = '10'",
    "config.train.steps = 10.0", "config.optimizer.learning_rate = 'high'", "return config.train",
    "return 5", "return None", "config.model = config", "del config.train", "config.train.steps",
    "config.update(5)", "config.train.update({'x': 1})", "def f(): return f()\n    f()",
    "config.train.steps = float('nan')", "config.optimizer.learning_rate = float('inf')",
    "config.lock()", "config = {}", "assert False", "assert False, 'why'", "open('nothing')",
    "raise KeyError", "config['train']['steps'] = [3]", "x = x", "config.mesh.data = True",
    "config.evaluation.stop_ids = (1, 'a')", "config.data.max_length = 10**24",
)  # fmt: skip


def _python(rng: random.Random) -> tuple[str, str]:
    """The text of a config file in Python, and what is wrong with it."""
    lines = [
        f"config.{section}.{name} = {tuple(value) if isinstance(value, list) else value!r}"
        for section, fields in _FIELDS.items()
        for name, value in fields.items()
    ]
    change = ""
    kind = rng.random()
    if kind < 0.6:
        change = rng.choice(_STATEMENTS)
        lines.insert(rng.randrange(len(lines)), change)
    elif kind < 0.8:
        section = rng.choice(sorted(_FIELDS))
        name = rng.choice(sorted(_FIELDS[section]))
        odd = rng.choice([value for value in ODD_VALUES if value == value != float("inf")])
        change = f"config.{section}.{name} = {odd!r}"
        lines.append(change)
    body = "\n    ".join(lines)
    text = (
        "from ift_jax.config.files import default_config\n\n\n"
        f"def get_config():\n    config = default_config()\n    {body}\n    return config\n"
    )
    if kind > 0.9:
        place = rng.randrange(len(text))
        text, change = text[:place] + rng.choice("()[]'\"=:\n #\0") + text[place:], f"at {place}"
    return text, change


def _override(rng: random.Random) -> str:
    section = rng.choice((*_FIELDS, "trian", ""))
    name = rng.choice((*_FIELDS.get(section, {}), "steps", "stepz", ""))
    odd = rng.choice(ODD_VALUES)
    value = rng.choice((json.dumps(odd), repr(odd), "('a', 'b')", "(", "-", "\u00e9", "1e3"))
    form = rng.choice(("--config.{}.{}={}", "--config.{}.{}", "config.{}.{}={}", "--config.{}={}"))
    return form.format(section, name, value)


class ConfigFile(Group):
    """A config file is loaded as `ift train` loads it.

    A refusal names the file or the field, whichever the user must change.
    """

    names_file = False

    def make(self, rng: random.Random, folder: Path) -> Case:
        overrides = [_override(rng)] if rng.random() < 0.25 else []
        if rng.random() < 0.5:
            path = folder / "config.py"
            text, change = _python(rng)
            content = text.encode("utf-8", "surrogatepass")
        else:
            # JSON is YAML too.
            path = folder / rng.choice(("config.json", "config.yaml"))
            content, change = spoiled_json(_FIELDS, rng)
        path.write_bytes(content)
        return Case(f"{path.name}: {change} {overrides}", path, overrides)

    def read(self, case: Case) -> Any:
        from ift_jax.config import files

        return files.load(str(case.path), case.extra)

    def complaint(self, case: Case, value: Any) -> str:
        from ift_jax.config.schema import Config

        for section in dataclasses.fields(Config()):
            default = getattr(Config(), section.name)
            if not dataclasses.is_dataclass(default):
                continue
            for field in dataclasses.fields(default):
                kind = type(getattr(default, field.name))
                found = getattr(getattr(value, section.name), field.name)
                if type(found) is not kind:
                    return f"{section.name}.{field.name} is {found!r}, not a {kind.__name__}"
        return ""


GROUP = ConfigFile()
