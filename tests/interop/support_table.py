"""The table of all model types of `transformers`: read and equal, or refused, and why.

Run as a program it builds a tiny random model of each type that this package reads, compares its
logits, and writes the page:

    python -m tests.interop.support_table docs/model_types.md
"""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ift_jax.errors import UserError
from ift_jax.interop.hugging_face_config import from_hugging_face
from ift_jax.interop.model_family import registered_families
from ift_jax.interop.text_part import TEXT_FAMILIES
from ift_jax.models import build_model
from tests.models import hugging_face as hf

TOLERANCE = 2e-4
HEADER = """# Model types

Each `model_type` that has a class for causal or for sequence-to-sequence language models in
`transformers` {version}, or whose text part is read here, and what `model.init_from` does with it.
"equal": the logits of a tiny random model are those of `transformers` in float32, within
{tolerance:g} at all positions. "text part": so are those of the language model in a folder with
images. Every other type is refused by name before a weight is read; the last column says what its
models have that this package's do not.
`python -m tests.interop.support_table {name}` writes this page.
[Real models](models.md#families) says more about the types that are read.

"""
# Words in the names of a configuration's fields -> what a model with such a field has. The first
# match counts: a hybrid with experts is named by its state.
MECHANISMS = {
    "text_config": "images or sound beside the text",
    "vision_config": "images or sound beside the text",
    "audio": "images or sound beside the text",
    "linear_num": "linear attention or a state",
    "linear_attn": "linear attention or a state",
    "mamba": "linear attention or a state",
    "ssm": "linear attention or a state",
    "state_size": "linear attention or a state",
    "conv_l_cache": "linear attention or a state",
    "lru_width": "linear attention or a state",
    "expert": "experts",
    "kv_lora_rank": "compressed keys and values",
    "per_layer_input": "embeddings for each layer",
    "alibi": "attention biases by distance",
}

# Some types are read only where they are plain decoders. This says what the others have.
REFUSED_VARIANTS = {"granitemoehybrid": "layers with states, and experts, which are refused"}


class Row(NamedTuple):
    """One model type of the table."""

    model_type: str
    architecture: str
    result: str  # "equal", "text part", or "refused".
    reason: str


def all_types() -> dict[str, str]:
    """Every model type with a class for causal or sequence-to-sequence language models.

    And those of folders with images whose text part is read.
    """
    auto = hf.transformers.models.auto.modeling_auto
    with_images = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    names = {
        **{name: with_images[name] for name in TEXT_FAMILIES if name in with_images},
        **auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        **auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    return {name: each if isinstance(each, str) else each[0] for name, each in names.items()}


def reason_of_refusal(model_type: str) -> str:
    """What a type's models have that ours do not, by the fields of its configuration class.

    Raises:
        AssertionError: The type is read although no family is registered for it.
    """
    try:
        from_hugging_face({"model_type": model_type}, "config.json")
    except UserError as error:
        assert "model_type" in str(error), error
    else:
        raise AssertionError(f"{model_type} is read, and no family is registered for it")
    fields = [field.name.lower() for field in dataclasses.fields(configuration(model_type))]
    for word, mechanism in MECHANISMS.items():
        if any(word in name for name in fields):
            return mechanism
    return "no class here yet"


def configuration(model_type: str) -> Any:
    """The configuration class of a model type."""
    return hf.transformers.models.auto.configuration_auto.CONFIG_MAPPING[model_type]


def example_of(model_type: str) -> str:
    """The first small model of a type in the tables of the tests."""
    for name, (kind, _) in (hf.DECODERS | hf.RELATIVES | hf.T5S).items():
        if getattr(hf.transformers, f"{kind}Config").model_type == model_type:
            return name
    raise AssertionError(f"{model_type} has no small model in tests/models")


def difference(name: str) -> float:
    """The largest difference between our logits and theirs, of a model in the tests' tables."""
    reference, config = hf.reference_and_config(name)
    model = build_model(config)
    params = hf.our_params(reference, config)
    tokens = np.random.default_rng(0).integers(3, hf.VOCAB, (2, 29)).astype(np.int32)
    positions = np.broadcast_to(np.arange(29, dtype=np.int32), tokens.shape)
    one = {"tokens": tokens, "segment_ids": np.ones_like(tokens), "positions": positions}
    inputs = {"input_ids": hf.torch.tensor(tokens)}
    batch = one
    if reference.config.is_encoder_decoder:
        batch = {
            f"{part}_{key}": each for part in ("encoder", "decoder") for key, each in one.items()
        }
        batch["decoder_tokens"] = np.where(positions == 0, 0, tokens)  # As in a run's batches.
        inputs["decoder_input_ids"] = inputs["input_ids"].clone()
        inputs["decoder_input_ids"][:, 0] = config.decoder_start_id
    ours = jax.jit(lambda params: model.logits(params, model.hidden(params, batch)))(params)
    with hf.torch.no_grad():
        theirs = reference(**inputs).logits.numpy()
    return float(np.abs(np.asarray(ours) - theirs).max())


def rows() -> list[Row]:
    """A row for each type, those that are read first.

    Raises:
        AssertionError: The logits of a type that is read are not those of `transformers`.
    """
    read = {family.model_type for family in registered_families()}
    types = all_types()
    table = []
    for model_type in sorted(types.keys() | read):
        architecture = types.get(model_type, "")
        if model_type in TEXT_FAMILIES:  # Compared by tests/interop/test_text_part.py.
            table.append(Row(model_type, architecture, "text part", "images, which are not read"))
            continue
        if model_type not in read:
            reason = reason_of_refusal(model_type)
            table.append(Row(model_type, architecture, "refused", reason))
            continue
        error = difference(example_of(model_type))
        assert error < TOLERANCE, f"{model_type}: logits differ by {error}"
        table.append(Row(model_type, architecture, "equal", REFUSED_VARIANTS.get(model_type, "")))
    return sorted(table, key=lambda row: row.result != "equal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="the page to write, such as docs/model_types.md")
    output = parser.parse_args().output
    lines = ["| `model_type` | class | | what it has besides |", "|---|---|---|---|"]
    for row in rows():
        lines.append(f"| `{row.model_type}` | `{row.architecture}` | {row.result} | {row.reason} |")
    header = HEADER.format(version=hf.transformers.__version__, tolerance=TOLERANCE, name=output)
    Path(output).write_text(header + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
