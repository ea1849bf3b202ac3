"""Token stores with a fault in any of their files: none is read as anything but what was prepared.

The manifest has the sums of the parts, so there is no way to read other ids than those prepared.
"""

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from tests.robustness.byte_mutations import spoiled_bytes
from tests.robustness.group import Case, Group
from tests.robustness.json_mutations import spoiled_json

_VOCABULARY = 1000


def _prepared(folder: Path) -> Path:
    """A store of two parts and two variants."""
    from tests.data.made_stores import example, make_store

    rng = np.random.default_rng(0)
    variants = [[example(3 + i, i % 2, rng) for i in range(7)] for _ in range(2)]
    return Path(make_store(folder, "task-train-0", variants, shards=2).path)


def _content(store: Any) -> list[Any]:
    return [
        (variant.tokens(i).tolist(), variant.weights(i).tolist(), variant.references(i))
        for variant in store.variants
        for i in range(len(variant))
    ]


class Store(Group):
    """A store is opened as training opens it, and all its examples are read."""

    def make(self, rng: random.Random, folder: Path) -> Case:
        store = _prepared(folder)
        files = sorted(path.name for path in store.iterdir())
        name = rng.choice(files)
        path = store / name
        before = path.read_bytes()
        kind = rng.random()
        if kind < 0.05:
            path.unlink()
            change = "missing"
        elif kind < 0.1:
            other = store / rng.choice(files)
            content = other.read_bytes()
            path.write_bytes(content)
            change = f"the content of {other.name}"
        elif name.endswith(".json"):
            content, change = spoiled_json(json.loads(before), rng)
            path.write_bytes(content)
        else:
            content, change = spoiled_bytes(before, rng)
            path.write_bytes(content)
        return Case(f"{name}: {change}", store)

    def read(self, case: Case) -> Any:
        from ift_jax.data.store_copies import open_stores
        from ift_jax.errors import UserError

        os.environ["IFT_JAX_CACHE"] = str(case.path.parent / "cache")
        opened = open_stores([case.path], _VOCABULARY)
        for why in opened.damage.values():
            raise UserError(why)
        return _content(opened.stores[case.path])

    def complaint(self, case: Case, value: Any) -> str:
        sound = case.path.parent / "sound"
        try:
            from ift_jax.data.store import TokenStore

            want = _content(TokenStore.open(_prepared(sound)))
        finally:
            shutil.rmtree(sound, ignore_errors=True)
        return "" if value == want else f"prepared was {want}; read is {value}"[:1000]


GROUP = Store()
