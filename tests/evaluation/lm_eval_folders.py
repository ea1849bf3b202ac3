"""A small released model, and a local task of lm-evaluation-harness, for `test_lm_eval.py`."""

import dataclasses
import importlib.resources
import json
import pathlib

import yaml

from ift_jax.interop.hugging_face_export import export
from ift_jax.models import build_model
from ift_jax.text.tokenizers.hugging_face import HuggingFaceTokenizer
from tests import small_models
from tests.text.small_tokenizers import NAMES, huggingface_definition

MAX_LENGTH = 256
QUESTIONS = [
    ("What has Anna lost?", ["apples", "the files of the user", "1 system"], 0),
    ("Who counts 23 apples?", ["Nobody", "An assistant"], 1),
    ("How many systems?", ["1", "23", "456", "So it is"], 2),
    ("Who sorts im portant files?", ["Anna", "The user", "end"], 0),
    ("What is it?", ["so", "apples!", "a system |"], 2),
]


def write_model(folder) -> str:
    """Writes a random Llama, whose tokenizer adds BOS, as a Hugging Face folder with ChatML."""
    tokenizer = HuggingFaceTokenizer(huggingface_definition(), NAMES, add_bos=True)
    fields = {"vocab_size": 512, "max_length": MAX_LENGTH}
    model = build_model(dataclasses.replace(small_models.CONFIG.model, **fields))
    templates = importlib.resources.files("ift_jax.text.chat_templates")
    export(
        model,
        small_models.random_params(model, 0.3),
        tokenizer,
        str(folder),
        template=(templates / "chatml.jinja").read_text(),
    )
    return str(folder)


def write_tasks(folder) -> str:
    """Writes one task of each kind of request, over a local file; returns the folder."""
    rows = [
        {
            "id": f"q{i}",
            "question": question,
            "choices": {"text": choices, "label": list("ABCD")[: len(choices)]},
            "answerKey": "ABCD"[gold],
            "gold": gold,
        }
        for i, (question, choices, gold) in enumerate(QUESTIONS)
    ]
    file = folder / "questions.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metadata": {"version": 1.0},
    }
    by_name = {
        "local_choice": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices.text}}",
            "doc_to_target": "gold",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "local_answer": {
            "output_type": "generate_until",
            "doc_to_target": "{{choices.text[gold]}}",
            "generation_kwargs": {"until": ["\n", "Question:"], "max_gen_toks": 12},
            "metric_list": [{"metric": "exact_match"}],
        },
        "local_text": {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{question}} {{choices.text | join(' ')}}",
            "metric_list": [{"metric": "word_perplexity"}, {"metric": "bits_per_byte"}],
        },
    }
    for name, fields in by_name.items():
        text = yaml.safe_dump({"task": name, **common, **fields})
        (folder / f"{name}.yaml").write_text(text)
    return str(folder)


def write_arc(folder, tasks: str) -> str:
    """Writes the questions of the tasks where `ift eval --benchmarks arc_easy` reads them."""
    path = folder / "arc" / "ARC-Easy" / "test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes((pathlib.Path(tasks) / "questions.jsonl").read_bytes())
    return str(folder)
