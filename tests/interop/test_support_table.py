"""The committed table of model types fits the families and the installed `transformers`."""

import re
from pathlib import Path

import pytest

transformers = pytest.importorskip("transformers", reason="its model types are listed")
pytest.importorskip("torch", reason="the reference models are torch modules")

from ift_jax.interop.model_family import registered_families  # noqa: E402
from ift_jax.interop.text_part import TEXT_FAMILIES  # noqa: E402
from tests.interop import support_table  # noqa: E402

PAGE = Path(__file__).parents[2] / "docs" / "model_types.md"


def committed():
    row = re.compile(
        r"^\| `([\w-]+)` \| `(\w*)` \| (equal|text part|refused) \| (.*) \|$", re.MULTILINE
    )
    found = row.findall(PAGE.read_text())
    return [support_table.Row(*row) for row in found]


def test_what_the_table_calls_equal_are_the_families_with_a_small_model_each():
    families = {family.model_type: family for family in registered_families()}
    equal = {row.model_type: row.architecture for row in committed() if row.result == "equal"}
    assert equal == {name: family.architecture for name, family in families.items()}
    assert len(equal) >= 30
    assert all(support_table.example_of(name) for name in families)


def test_an_encoder_decoder_and_its_reference_read_the_same_first_token():
    assert support_table.difference("1.0") < support_table.TOLERANCE  # It begins with id 0.
    assert support_table.difference("t5gemma2") < support_table.TOLERANCE  # And it with BOS.


def test_the_table_has_every_type_of_the_installed_transformers_with_its_reason():
    if f"`transformers` {transformers.__version__}, or" not in PAGE.read_text():
        pytest.skip("the table was made with another version of transformers")
    rows = committed()
    assert {row.model_type for row in rows} >= set(support_table.all_types())
    assert {row.model_type for row in rows if row.result == "text part"} == set(TEXT_FAMILIES)
    refused = [row for row in rows if row.result == "refused"]
    assert len(refused) > 20 and all(row.reason for row in refused)
    for row in refused:
        assert support_table.reason_of_refusal(row.model_type) == row.reason
