"""A few problems of every benchmark, in the layout of its release or of its Hugging Face export."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq

_WORK = "Anna has <<2+3=5>>5 apples.\n#### 5"
GSM8K = {
    "train": [{"question": f"Count {i}?", "answer": _WORK} for i in range(9)],
    "test": [
        {"question": f"Anna counts {i} apples and 2 apples?", "answer": f"So {i}.\n#### {i + 2}"}
        for i in range(3)
    ],
}
BBH = {
    "navigate": [{"input": "Turn?\nOptions:\n- Yes\n- No", "target": "No"}] * 2,
    "word_sorting": [{"input": "Sort: b a", "target": "a b"}],
}
_SHOWN = "Q: Go {}?\nA: Let's think step by step.\nIt goes on.\nSo the answer is Yes."
BBH_PROMPT = "canary\n-----\nSay where it ends.\n\n" + "\n\n".join(
    _SHOWN.format(i) for i in range(3)
)
MMLU = [
    {
        "question": f"What is {i}? ",
        "choices": ["one", "two, or so", "three", "four"],
        "answer": i % 4,
    }
    for i in range(6)
]
ARC = [
    {"id": "a1", "question": "Hot?", "text": ["sun", "ice"], "label": ["A", "B"], "key": "A"},
    {"id": "a2", "question": "Cold?", "text": ["a b", "ice", "c"], "label": ["1", "2", "3"]}
    | {"key": "2"},
]
HELLASWAG = [
    {
        "activity_label": "Sorting",
        "ctx_a": "The user sorts files. [header] How [title] Sort them",
        "ctx_b": "then he",
        "endings": ["eats.", "has lost files.", "counts  apples [step] now.", "is lost."],
        "label": "1",
    }
]
IFEVAL = [
    {
        "key": 7,
        "prompt": "Name apples. No commas, two words.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "at least", "num_words": 2}],
    }
]
MT_BENCH = [
    {"question_id": 81, "category": "writing", "turns": ["Count apples.", "Count again."]},
    {"question_id": 101, "category": "reasoning", "turns": ["Sort files.", "Sort again."]},
]
ALPACA = [{"instruction": "Count apples.", "output": "1", "generator": "x", "dataset": "koala"}]
_HEAD = 'def one(x):\n    """Return 1."""\n'
HUMAN_EVAL = [{"task_id": "HumanEval/0", "prompt": _HEAD, "entry_point": "one", "test": "pass"}]


def write_releases(root):
    """Write all sets as their repositories publish them."""
    for split, rows in GSM8K.items():
        _json_lines(root / "gsm8k" / f"{split}.jsonl", rows)
    for task, rows in BBH.items():
        _write(root / "bbh" / f"{task}.json", json.dumps({"canary": "c", "examples": rows}))
        _write(root / "bbh" / "cot-prompts" / f"{task}.txt", BBH_PROMPT)
    for split in ("dev", "test"):
        lines = [
            ",".join(f'"{cell}"' for cell in (row["question"], *row["choices"]))
            + f",{'ABCD'[row['answer']]}"
            for row in MMLU
        ]
        _write(root / "mmlu" / split / f"high_school_math_{split}.csv", "\n".join(lines) + "\n")
    for name in ("Easy", "Challenge"):
        for split in ("Train", "Test"):
            path = root / "arc" / f"ARC-{name}" / f"ARC-{name}-{split}.jsonl"
            _json_lines(path, [_released_arc(row) for row in ARC])
    for split in ("train", "val"):
        _json_lines(root / "hellaswag" / f"hellaswag_{split}.jsonl", HELLASWAG)
    _json_lines(root / "ifeval" / "input_data.jsonl", IFEVAL)
    _json_lines(root / "mt_bench" / "question.jsonl", MT_BENCH)
    _write(root / "alpaca_eval" / "alpaca_eval.json", json.dumps(ALPACA))
    path = root / "humaneval" / "HumanEval.jsonl.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress((json.dumps(HUMAN_EVAL[0]) + "\n").encode()))


def write_exports(root):
    """Write the sets as the Hugging Face hub exports them; BBH's prompts are not among them."""
    for split, rows in GSM8K.items():
        _parquet(root / "gsm8k" / "main" / f"{split}-00000-of-00001.parquet", rows)
    for task, rows in BBH.items():
        _parquet(root / "bbh" / task / "test-00000-of-00001.parquet", rows)
        _write(root / "bbh" / "cot-prompts" / f"{task}.txt", BBH_PROMPT)
    for split in ("dev", "test"):
        for subject in ("all", "high_school_math"):
            _parquet(root / "mmlu" / subject / f"{split}-00000-of-00001.parquet", MMLU)
    for name in ("Easy", "Challenge"):
        for split in ("train", "test"):
            path = root / "arc" / f"ARC-{name}" / f"{split}-00000-of-00001.parquet"
            _parquet(path, [_exported_arc(row) for row in ARC])
    for split in ("train", "validation"):
        _parquet(root / "hellaswag" / "data" / f"{split}-00000-of-00001.parquet", HELLASWAG)
    empty = dict.fromkeys(("relation", "num_words", "keywords"))
    rows = [row | {"kwargs": [empty | one for one in row["kwargs"]]} for row in IFEVAL]
    _parquet(root / "ifeval" / "data" / "train-00000-of-00001.parquet", rows)
    _json_lines(root / "mt_bench" / "question.jsonl", MT_BENCH)
    _parquet(root / "alpaca_eval" / "eval-00000-of-00001.parquet", ALPACA)
    path = root / "humaneval" / "openai_humaneval" / "test-00000-of-00001.parquet"
    _parquet(path, HUMAN_EVAL)


def _released_arc(row):
    choices = [
        {"text": text, "label": label}
        for text, label in zip(row["text"], row["label"], strict=True)
    ]
    question = {"stem": row["question"], "choices": choices}
    return {"id": row["id"], "question": question, "answerKey": row["key"]}


def _exported_arc(row):
    choices = {"text": row["text"], "label": row["label"]}
    fields = {"id": row["id"], "question": row["question"]}
    return fields | {"choices": choices, "answerKey": row["key"]}


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _json_lines(path, rows):
    _write(path, "".join(json.dumps(row) + "\n" for row in rows))


def _parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
