"""SmolLM2-135M-Instruct, a real model, against torch with the same dequantized weights.

`launch/smollm2.sh convert` makes the workdir that these tests read; without it they are skipped.
"""

import json
import os
from pathlib import Path

import pytest

from ift_jax.checkpoint.open_model import open_model_source
from ift_jax.decoding import Options
from ift_jax.evaluation.text_generator import describe_text_generator, load_generator
from ift_jax.text.records import Message
from tests.shared_data import SHARED, requires_shared

WORKDIR = Path(
    os.environ.get(
        "IFT_JAX_SMOLLM2", Path(__file__).resolve().parents[1] / "runs/smollm2_135m_instruct"
    )
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (WORKDIR / "config.json").exists(),
        reason="the model is missing: launch/smollm2.sh convert makes it",
    ),
]


@pytest.fixture(scope="module")
def opened():
    source = open_model_source(str(WORKDIR))
    text_generator = describe_text_generator(source)
    return text_generator, load_generator(source, text_generator)


def references():
    path = SHARED / "data" / "smollm2" / "greedy_reference.json"
    return json.loads(path.read_text(encoding="utf-8"))["records"]


def messages_of(record):
    return [Message(m["role"], m["content"]) for m in record["messages"]]


@requires_shared
def test_ids_and_greedy_text_are_those_of_torch(opened):
    text_generator, generator = opened
    prompts = [
        text_generator.formatter.prompt(messages_of(record)).tolist() for record in references()
    ]
    assert prompts == [record["input_ids"] for record in references()]
    outputs = generator.generate(prompts, Options(96), batch_size=16)
    assert outputs == [record["output_ids"] for record in references()]


def test_an_export_loads_in_transformers_and_says_the_same(opened, tmp_path):
    torch = pytest.importorskip("torch", reason="transformers runs the model in torch")
    transformers = pytest.importorskip("transformers", reason="it loads the exported folder")
    from ift_jax.commands.main import main

    folder = str(tmp_path / "exported")
    assert main(["export", "--workdir", str(WORKDIR), "--output", folder]) == 0
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text_generator, generator = opened
    question = "What is the capital of France?"
    theirs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    ours = text_generator.formatter.prompt([Message("user", question)]).tolist()
    assert theirs["input_ids"][0].tolist() == ours
    # The exported generation_config.json decides the rest: greedy decoding, and when to stop.
    ids = model.generate(**theirs, max_new_tokens=24)[0, len(ours) :].tolist()
    (answer,) = generator.generate([ours], Options(24), batch_size=1)
    assert ids == answer
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert text == text_generator.text(answer) == "The capital of France is Paris."
