"""The open mixtures: published counts, what their rows become, and the recipes' stages."""

import pytest
import seqio

from configs.smollm3 import TEMPLATE
from ift_jax.errors import UserError
from ift_jax.text.rows.parse_record import parse_record
from tasks.open_mixtures import tasks
from tasks.open_mixtures.releases import RELEASES, SMOLLM3_SFT
from tests.sources.dataset_files import messages, records, write
from tests.text.formatters import chat_formatter, shown, small_formatter

pytestmark = pytest.mark.usefixtures("own_registry")
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
# Millions of tokens of each split of smoltalk2's SFT, on its card, in the order of the recipe.
SMOLLM3_TOKENS = (
    0.63, 22.06, 13.83, 11.38, 619.05, 166.79, 11.49, 158.23, 379.82, 37.51, 4.63, 20.34, 51.82,
    95.78, 97.62, 3.17, 29.84, 29.4, 63.81, 8.25, 136.21, 18.92, 551.97, 16734, 25.92,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name, release in RELEASES.items() if release.rows])
def test_the_parts_of_a_release_sum_to_its_published_rows(name):
    release = RELEASES[name]
    assert sum(part.rows for part in release.parts.values()) == release.rows


def test_smollm3_is_25_splits_with_the_weights_of_its_recipe():
    weights = {name: part.weight for name, part in SMOLLM3_SFT.items() if part.weight != 1}
    assert len(SMOLLM3_SFT) == 25
    assert sorted(weights.values()) == [0.02, 0.3, 0.4, 0.5, 0.5]
    thinks = [name for name in SMOLLM3_SFT if not name.endswith("_no_think")]
    assert len(thinks) == 10
    assert sum(SMOLLM3_SFT[name].rows for name in thinks) // 100_000 == 14  # "1.5M rows".
    # The model's page says 1 billion tokens without thoughts and 0.8 with them.
    tokens = [part.weight * n for part, n in zip(SMOLLM3_SFT.values(), SMOLLM3_TOKENS, strict=True)]
    by_kind = {True: 0.0, False: 0.0}
    for name, n in zip(SMOLLM3_SFT, tokens, strict=True):
        by_kind[name in thinks] += n
    assert round(by_kind[False] / 1000, 1) == 1.0
    assert round(by_kind[True] / 1000, 1) == 0.9
    assert round(sum(tokens) / 1000, 1) == 1.9


def test_nanochat_sees_its_questions_several_times(tmp_path):
    row = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}
    write(tmp_path / "mmlu" / "auxiliary_train.jsonl", [{"train": row}] * 2)
    write(tmp_path / "gsm8k" / "train.jsonl", [{"question": "Q", "answer": "A"}])
    tasks.register(str(tmp_path))
    found = records("nanochat_sft_mmlu", "all")
    assert len(found) == 6
    assert messages(found[0]) == [
        ("user", "1 + 1?\n\nA. 1\nB. 2\nC. 3\nD. 4\n\nAnswer with the letter alone."),
        ("assistant", "B"),
    ]
    assert [messages(record) for record in records("nanochat_sft_gsm8k", "all")] == [
        [("user", "Q"), ("assistant", "A")]
    ] * 4


def test_a_share_of_rows_is_the_same_whenever_it_is_taken(tmp_path):
    rows = [{"messages": [CHAT[0] | {"content": f"Hi {i}"}, CHAT[1]]} for i in range(2000)]
    name = "OpenThoughts3_1.2M_think"
    write(tmp_path / "smoltalk2" / "SFT" / f"{name}.jsonl", rows)
    write(tmp_path / "smoltalk2" / "OpenHermes_2.5_no_think.jsonl", rows)
    tasks.register(str(tmp_path))
    few = records(f"smollm3_sft_{name}", "all")
    assert 0.01 < len(few) / 2000 < 0.03
    assert records(f"smollm3_sft_{name}", "all") == few
    half = records("smollm3_sft_OpenHermes_2.5_no_think", "all")
    assert 0.46 < len(half) / 2000 < 0.54
    taken = [messages(record)[0] for record in half]
    assert [messages(record)[0] for record in few] == [
        turn for turn in taken if turn in [messages(record)[0] for record in few]
    ]


def test_a_row_of_smollm3_says_how_its_template_is_filled(tmp_path):
    options = {"enable_thinking": False, "custom_instructions": "Be brief.", "xml_tools": None}
    write(
        tmp_path / "smoltalk2" / "SFT" / "table_gpt_no_think.jsonl",
        [{"messages": CHAT, "chat_template_kwargs": options}],
    )
    tasks.register(str(tmp_path))
    [fields] = records("smollm3_sft_table_gpt_no_think", "all")
    record = parse_record(fields, "here")
    assert record.template_options == {"enable_thinking": False, "custom_instructions": "Be brief."}
    formatter = chat_formatter(TEMPLATE, template_options=('date="2025-07-08"',))
    [example] = formatter.encode(record)
    assert shown(formatter, example) == (
        "<|im_start|>system\n## Metadata\n\nKnowledge Cutoff Date: June 2025\n"
        "Today Date: 08 July 2025\nReasoning Mode: /no_think\n\n"
        "## Custom Instructions\n\nBe brief.\n\n## Tools\n\n### XML Tools\n\nNone\n\n"
        "### Python Tools\n\nNone\n\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n«Hello<|im_end|>»\n"
    )


def test_rows_of_each_form_are_read(tmp_path):
    called = [CHAT[0], {"role": "assistant", "content": None, "function_calls": "f(1)"}]
    system = {"role": "system", "content": "", "functions": "[]", "function_calls": None}
    turns = [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]
    write(tmp_path / "Dolci-Instruct-SFT" / "train.jsonl", [{"messages": [system, *called]}])
    write(tmp_path / "OpenThoughts3-1.2M" / "train.jsonl", [{"conversations": turns}])
    write(tmp_path / "OpenThoughts-114k" / "train.jsonl", [{"conversations": turns, "system": "S"}])
    write(
        tmp_path / "Nemotron-Post-Training-Dataset-v1" / "chat.jsonl",
        [{"messages": CHAT, "reasoning": word} for word in ("on", "off")],
    )
    tasks.register(str(tmp_path))
    [dolci] = [parse_record(fields, "here") for fields in records("dolci_instruct", "all")]
    assert dolci.messages[0].functions == "[]" and dolci.messages[2].function_calls == "f(1)"
    [thoughts] = records("openthoughts3", "all")
    assert messages(thoughts) == [("user", "Hi"), ("assistant", "Hello")]
    [with_system] = records("openthoughts_114k", "all")
    assert messages(with_system)[0] == ("system", "S")
    found = [parse_record(fields, "here") for fields in records("nemotron_v1_chat", "all")]
    assert [each.template_options["enable_thinking"] for each in found] == [True, False]
    mixture = seqio.MixtureRegistry.get("nemotron_v1")
    assert len(mixture.tasks) == 5


def test_hermes_4_trains_the_closing_tag_and_the_end_of_the_turn(tmp_path):
    cut = {"role": "assistant", "content": "<think>\nSo, wait. So, wait.</think>"}
    row = {"messages": [*CHAT, CHAT[0], cut]}
    path = tmp_path / "hermes4_length_control.jsonl"
    write(path, [row])
    tasks.register(str(tmp_path))
    [fields] = records("hermes4_length_control", "train")
    formatter = small_formatter("huggingface")
    [example] = formatter.encode(parse_record(fields, "here"))
    assert shown(formatter, example).endswith("So, wait. So, wait.«</think><|im_end|>»\n")
    assert shown(formatter, example).count("«") == 1
    write(path, [{"messages": CHAT}])
    with pytest.raises(UserError, match="its last turn is no thought that ends in </think>"):
        records("hermes4_length_control", "train")


def test_what_is_missing_is_named_with_its_place():
    tasks.register("")
    with pytest.raises(UserError, match="put SFT/s1k_1.1_think-.*parquet or SFT/s1k_1.1_think.jso"):
        records("smollm3_sft_s1k_1.1_think", "train")
    with pytest.raises(UserError, match="allenai/Dolci-Think-SFT-7B: the split 'train' is not on"):
        records("dolci_think_7b", "train")
