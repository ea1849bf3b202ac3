"""The end of a message about a name that does not exist, which all commands share."""

import re
from pathlib import Path

import pytest

from ift_jax.errors import offered

PACKAGE = Path(__file__).resolve().parents[1] / "ift_jax"
FRUITS = [f"fruit {k}" for k in range(23)]


@pytest.mark.parametrize(
    ("name", "names", "expected"),
    [
        ("aple", ["pear", "apple"], "; did you mean 'apple'?"),
        ("plum", ["pear", "apple"], "; there are pear, apple"),
        ("plum", ["pear"], "; there is pear"),
        ("plum", [], ""),
        ("q", FRUITS, f"; there are {', '.join(FRUITS[:20])} and 3 more"),
        ("q", {"pear": 1, "apple": 2}, "; there are pear, apple"),
    ],
)
def test_the_nearest_name_is_offered_or_all_are(name, names, expected):
    assert offered(name, names) == expected


def test_no_other_file_searches_for_near_names_or_words_what_it_found():
    """One function means one wording, so none may write its own."""
    own = re.compile(r"\bdifflib\b|did you mean \{|; known: |\bor f\"; (there|all) ")
    found = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if own.search(path.read_text(encoding="utf-8"))
    }
    # A field of a row or message is asked about in a sentence of its own, which goes on.
    assert found == {"errors.py", "text/rows/values.py"}
