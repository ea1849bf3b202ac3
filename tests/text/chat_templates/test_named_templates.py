"""The named templates: by hand, and against `transformers` with the same Jinja."""

import json

import numpy as np
import pytest

from ift_jax.text.chat_templates.registry import NAMES
from ift_jax.text.dropped import TEMPLATE_UNSTABLE
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates.golden_texts import RECENT
from tests.text.chat_templates.named_table import REFERENCES
from tests.text.formatters import named_formatter, shown
from tests.text.shapes import RECORDS, SHAPES, TOOLS

ALPACA = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. "
)
QWEN_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}\n'
    "</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
)
QWEN_CALL = (
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    '«<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call><|im_end|>»\n'
    "<|im_start|>user\n<tool_response>\n7\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
)
LLAMA3_TOOL = json.dumps(TOOLS[0], indent=4)
LLAMA3_USER = "<|start_header_id|>user<|end_header_id|>\n\n"
LLAMA3_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"

# Trained text stands between angles. A list has one example for each trained turn.
GOLDEN = {
    **RECENT,
    ("chatml", "chat"): "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n«Hello<|im_end|>»\n"
    "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«So.<|im_end|>»\n",
    ("chatml", "system"): "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\n«Hello<|im_end|>»\n",
    ("smollm2", "chat"): "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained "
    "by Hugging Face<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    "«Hello<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«So.<|im_end|>»\n",
    ("smollm2", "system"): "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>"
    "\n<|im_start|>assistant\n«Hello<|im_end|>»\n",
    ("tulu", "chat"): "<|user|>\nHi\n<|assistant|>\n«Hello</s>»\n<|user|>\nWhy?\n<|assistant|>\n"
    "«So.</s>»",
    ("tulu", "system"): "<|system|>\nBe kind.\n<|user|>\nHi\n<|assistant|>\n«Hello</s>»",
    ("olmo2", "system"): "<s><|system|>\nBe kind.\n<|user|>\nHi\n<|assistant|>\n«Hello</s>»",
    ("zephyr", "chat"): "<|user|>\nHi</s>\n<|assistant|>\n«Hello</s>»\n<|user|>\nWhy?</s>\n"
    "<|assistant|>\n«So.</s>»\n",
    ("zephyr", "system"): "<|system|>\nBe kind.</s>\n<|user|>\nHi</s>\n"
    "<|assistant|>\n«Hello</s>»\n",
    ("llama2", "chat"): "<s>[INST] Hi [/INST]« Hello </s>»<s>[INST] Why? [/INST]« So. </s>»",
    ("llama2", "system"): "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]« Hello </s>»",
    ("llama3", "chat"): "<|begin_of_text|>"
    f"{LLAMA3_USER}Hi<|eot_id|>{LLAMA3_ANSWER}«Hello<|eot_id|>»"
    f"{LLAMA3_USER}Why?<|eot_id|>{LLAMA3_ANSWER}«So.<|eot_id|>»",
    ("llama3", "system"): "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe kind."
    f"<|eot_id|>{LLAMA3_USER}Hi<|eot_id|>{LLAMA3_ANSWER}«Hello<|eot_id|>»",
    ("llama3", "tools"): "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Environment: ipython\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    f"<|eot_id|>{LLAMA3_USER}Given the following functions, please respond with a JSON for a "
    "function call with its proper arguments that best answers the given prompt.\n\nRespond in the "
    'format {"name": function name, "parameters": dictionary of argument name and its value}.Do '
    f"not use variables.\n\n{LLAMA3_TOOL}\n\nHi<|eot_id|>{LLAMA3_ANSWER}"
    '«{"name": "f", "parameters": {"x": "é"}}<|eot_id|>»<|start_header_id|>ipython<|end_header_id|>'
    f'\n\n"7"<|eot_id|>{LLAMA3_ANSWER}«Seven.<|eot_id|>»',
    ("mistral_v1", "chat"): "<s> [INST] Hi [/INST]« Hello</s>» [INST] Why? [/INST]« So.</s>»",
    ("mistral_v1", "system"): "<s> [INST] Be kind.\n\nHi [/INST]« Hello</s>»",
    ("mistral_v3", "chat"): "<s>[INST] Hi[/INST]« Hello</s>»[INST] Why?[/INST]« So.</s>»",
    ("mistral_v3", "system"): "<s>[INST] Be kind.\n\nHi[/INST]« Hello</s>»",
    # The system's text moves to the last user's turn, so two rounds make two examples.
    ("mistral_v3", "system2"): [
        "<s>[INST] Be kind.\n\nHi[/INST]« Hello</s>»",
        "<s>[INST] Hi[/INST] Hello</s>[INST] Be kind.\n\nWhy?[/INST]« So.</s>»",
    ],
    ("mistral_v3", "tools"): '<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "f", '
    '"parameters": {"type": "object"}}}][/AVAILABLE_TOOLS][INST] Hi[/INST]«[TOOL_CALLS] [{"name": '
    '"f", "arguments": {"x": "é"}, "id": "abc123def"}]</s>»[TOOL_RESULTS] {"content": "7", '
    '"call_id": "abc123def"}[/TOOL_RESULTS]« Seven.</s>»',
    ("gemma", "chat"): "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
    "«Hello<end_of_turn>»\n<start_of_turn>user\nWhy?<end_of_turn>\n<start_of_turn>model\n"
    "«So.<end_of_turn>»\n",
    ("gemma", "system"): "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n"
    "<start_of_turn>model\n«Hello<end_of_turn>»\n",
    ("qwen2.5", "chat"): "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
    "helpful assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    "«Hello<|im_end|>»\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n«So.<|im_end|>»\n",
    ("qwen2.5", "tools"): "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
    f"helpful assistant.\n\n{QWEN_TOOLS}{QWEN_CALL}«Seven.<|im_end|>»\n",
    # The template leaves out the thinking of an answer that another question follows.
    ("qwen3", "chat"): [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "«<think>\n\n</think>\n\nHello<|im_end|>»\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        "«<think>\n\n</think>\n\nSo.<|im_end|>»\n",
    ],
    ("qwen3", "thinking"): [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        "«<think>\nHm.\n</think>\n\nHello<|im_end|>»\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"
        "«<think>\nWell.\n</think>\n\nSo.<|im_end|>»\n",
    ],
    ("qwen3", "tools"): [
        f"<|im_start|>system\n{QWEN_TOOLS}"
        + QWEN_CALL.split("<|im_end|>»")[0].replace("«", "«<think>\n\n</think>\n\n")
        + "<|im_end|>»\n",
        f"<|im_start|>system\n{QWEN_TOOLS}{QWEN_CALL.replace('«', '').replace('»', '')}"
        "«<think>\n\n</think>\n\nSeven.<|im_end|>»\n",
    ],
    ("qwen3_nothink", "chat"): [
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "«Hello<|im_end|>»\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n"
        "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        "«So.<|im_end|>»\n",
    ],
    ("alpaca", "chat"): "<s>Below is an instruction that describes a task. "
    f"{ALPACA}Hi\n\n### Response:«Hello</s>»\n\n### Instruction:\nWhy?\n\n### Response:«So.</s>»",
    ("alpaca", "system"): "<s>Below is an instruction that describes a task, paired with an input "
    f"that provides further context. {ALPACA}Be kind.\n\n### Input:\nHi\n\n### Response:«Hello</s>»",
    ("vicuna", "chat"): f"<s>{VICUNA}USER: Hi ASSISTANT:« Hello</s>»"
    "USER: Why? ASSISTANT:« So.</s>»",
    ("vicuna", "system"): "<s>Be kind. USER: Hi ASSISTANT:« Hello</s>»",
    ("plain", "chat"): "Hi\n«Hello</s>»Why?\n«So.</s>»",
    ("plain", "system"): "Be kind.\nHi\n«Hello</s>»",
}


@pytest.mark.parametrize(("name", "kind"), GOLDEN)
def test_texts_and_trained_parts_by_hand(name, kind):
    formatter = named_formatter(name, "byte_level")
    expected = GOLDEN[name, kind]
    examples = formatter.encode(parse_record(RECORDS[kind], "golden"))
    expected = [expected] if isinstance(expected, str) else expected
    if name == "llama3":  # The template writes the tokenizer's own BOS.
        expected = [text.replace("<|begin_of_text|>", "<s>") for text in expected]
    assert [shown(formatter, example) for example in examples] == expected
    stop = expected[-1].rpartition("»")[0]
    decoded = formatter.tokenizer.decode(formatter.stop_ids[:1], keep_special=True)
    assert stop.endswith(decoded)


def test_every_name_has_a_golden_text_or_a_reference():
    assert {name for name, *_ in (*GOLDEN, *REFERENCES)} == set(NAMES)


# What the other styles of tokenizers are tried on: edges of answers, and bytes.
FEW = ("system, three rounds", "unicode", "empty answer", "tools, two calls", "thinking")


@pytest.mark.parametrize("style", tok.STYLES)
@pytest.mark.parametrize("name", NAMES)
def test_ids_and_masks_are_those_of_transformers(name, style):
    pytest.importorskip("transformers")
    formatter = named_formatter(name, style)
    reference = tok.theirs(style, NAMES[name], formatter.template_source)
    compared = 0
    for shape_name in SHAPES if style == "byte_level" else FEW:
        shape = SHAPES[shape_name]
        if name.endswith("_nothink") and shape_name.startswith("thinking"):
            continue  # Its prompt rules thinking out; see the test below.
        for field, word in (("tools", "tools"), ("reasoning_content", "reasoning_content")):
            if field in json.dumps(shape) and word not in formatter.template_source:
                break
        else:
            compared += compare(formatter, reference, shape)
    assert compared >= (12 if style == "byte_level" else 5)


def compare(formatter, reference, shape):
    """Compares examples and prompts with `apply_chat_template`; returns how many."""

    def apply(messages, **options):
        return reference.apply_chat_template(
            messages, tools=shape.get("tools"), tokenize=True, return_dict=True, **options
        )

    messages = shape["messages"]
    record = parse_record(shape, "shape")
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    examples = formatter.encode(record)
    ends = answers if len(examples) > 1 else [len(messages) - 1]
    for example, end in zip(examples, ends, strict=True):
        out = apply(messages[: end + 1], return_assistant_tokens_mask=True)
        assert example.tokens.tolist() == out["input_ids"]
        mask = out["assistant_masks"]
        if len(examples) > 1:  # Each example trains only its last answer.
            mask = [0] * example.prompt_length + mask[example.prompt_length :]
        assert (example.weights > 0).astype(int).tolist() == mask
    for turn in answers:
        prompt = formatter.prompt(parse_record({**shape, "messages": messages[:turn]}, "shape"))
        assert prompt.tolist() == apply(messages[:turn], add_generation_prompt=True)["input_ids"]
        example = examples[0] if len(examples) == 1 else examples[answers.index(turn)]
        if formatter.template_source.startswith("{#- Nemotron") and not thinks(messages[turn]):
            # Its prompt for thinking is another one than that of an answer without a thought.
            prompt = apply(messages[:turn], add_generation_prompt=True, enable_thinking=False)
            prompt = np.array(prompt["input_ids"])
        assert example.tokens[: len(prompt)].tolist() == prompt.tolist()
    return len(examples) + len(answers)


def thinks(message):
    return bool(message.get("reasoning_content")) or "<think>" in message["content"]


@pytest.mark.parametrize("template", ["qwen3_nothink", "qwen3.5_nothink"])
def test_a_thought_after_a_prompt_without_thinking_is_dropped(template):
    formatter = named_formatter(template, "byte_level")
    for name in ("thinking", "thinking in the text"):
        made = formatter.encode(parse_record(SHAPES[name], "x"))
        assert made == TEMPLATE_UNSTABLE
