"""`ift inspect` shows the two sides of a pair one after the other, each with what is trained."""

import numpy as np

from ift_jax.data.mixture import Mixture
from ift_jax.inspection.example_texts import example_texts
from ift_jax.text.rows.parse_record import RowOptions, parse_record
from tests.data.made_stores import make_store
from tests.text.formatters import small_formatter


def test_each_side_of_a_pair_has_its_own_title_and_text(tmp_path):
    formatter = small_formatter("sentencepiece")
    row = {"prompt": "q", "chosen": "yes", "rejected": "no, no"}
    (pair,) = formatter.encode(parse_record(row, "f:1", options=RowOptions("preference")))
    store = make_store(tmp_path, "pairs-train-1", [[pair]])
    mixture = Mixture(["pairs"], np.ones(1), [store], [[]])
    shown = list(example_texts(mixture, ["pairs"], 3, formatter.tokenizer))
    lengths = pair.rejected_start, len(pair.tokens) - pair.rejected_start
    assert [example.title for example in shown] == [
        f"pairs, example 0, chosen, {lengths[0]} tokens",
        f"pairs, example 0, rejected, {lengths[1]} tokens",
    ]
    for example, answer, other in zip(shown, ("yes", "no, no"), ("no, no", "yes"), strict=True):
        trained = "".join(run.text for run in example.runs if run.weight)
        assert answer in trained and "q" not in trained
        assert other not in "".join(run.text for run in example.runs)
