"""What of a conversation is trained by a policy, token by token, against texts written by hand."""

import dataclasses

import pytest

from ift_jax.errors import UserError
from ift_jax.text.conversation_parts import without_earlier_thoughts
from ift_jax.text.dropped import NOTHING_TRAINED
from ift_jax.text.policies import Policy
from ift_jax.text.rows.parse_record import parse_record
from tests.text import chat_tokenizers as tok
from tests.text.conversations import conversations
from tests.text.formatters import chat_formatter, make_formatter, named_formatter, shown
from tests.text.shapes import CALLED, CHAT, SHAPES, SYSTEM, TOOLS, rounds
from tests.text.small_tokenizers import CHATML, KINDS, small_tokenizer, token_bytes

THOUGHTS = [
    {**m, "reasoning_content": thought} if thought else m
    for m, thought in zip(CHAT, ("", "Hello? Hm.", "", "Well: So."), strict=True)
]
IN_TEXT = rounds(
    "Hi", "<think>\nHello? Hm.\n</think>\n\nHello", "Why?", "<think>\nWell: So.\n</think>\n\nSo."
)
CALLING = [CALLED[0], {**CALLED[1], "content": "Let me see f."}, *CALLED[2:]]


def user(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n"


def assistant(text):
    return f"<|im_start|>assistant\n{text}\n"


def texts(template, row, style="byte_level", **policy):
    """What a row becomes: the text of each example, with the trained part in angles."""
    how = named_formatter(template, style, **policy)
    made = how.encode(parse_record(row, "f.jsonl:3"))
    return [shown(how, example) for example in made] if isinstance(made, list) else made


# Token by token, on conversations with everything in them.


def with_thoughts(record):
    """Return a conversation in which every second answer has a thought in its text."""
    messages = list(record.messages)
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    for i in answers[::2]:
        thought = messages[i - 1].content.replace("</think>", "")
        content = f"<think>{thought}</think>\n\n{messages[i].content}"
        messages[i] = dataclasses.replace(messages[i], content=content)
    return dataclasses.replace(record, messages=tuple(messages))


def segments(record, policy):
    """Write a conversation by hand in ChatML: texts with the loss weight of each."""
    messages = record.messages
    roles = [i for i, message in enumerate(messages) if message.role in policy.train_roles]
    last_user = max(i for i in range(roles[-1] + 1) if messages[i].role == "user")
    for i, message in enumerate(messages):
        chosen = {
            "all": i in roles,
            "last": i == roles[-1],
            "last_round": i in roles and i >= last_user,
        }[policy.train_on]
        weight = (1.0 if message.weight is None else message.weight) if chosen else 0.0
        yield f"<|im_start|>{message.role}\n", 0.0
        text = message.content
        if text.startswith("<think>") and not policy.train_thinking:
            thought, close, rest = text.partition("</think>")
            text = rest.lstrip()
            yield thought + close + rest[: len(rest) - len(text)], 0.0
        yield text + "<|im_end|>", weight
        yield "\n", 0.0


POLICIES = [
    {"train_on": "last_round"},
    {"train_thinking": False},
    {"train_thinking": False, "train_on": "last"},
    {"train_roles": ("user",)},
    {"train_roles": ("system", "tool", "assistant"), "train_on": "last_round"},
]


@pytest.mark.parametrize("options", POLICIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_token_has_the_weight_of_its_characters(kind, options):
    policy = Policy(**options)
    how = make_formatter(small_tokenizer(kind), template="chatml", **options)
    as_usual = make_formatter(small_tokenizer(kind), template="chatml")
    checked = dropped = 0
    for made in conversations(5, 80, tools=True):
        record = with_thoughts(made)
        written = [(text.encode(), weight) for text, weight in segments(record, policy)]
        weights = [weight for text, weight in written for _ in text]
        whole = b"".join(text for text, _ in written)
        if not any(weights):
            assert how.encode(record) == NOTHING_TRAINED
            dropped += 1
            continue
        [example] = how.encode(record)
        at = 0
        for token, weight in zip(example.tokens.tolist(), example.weights.tolist(), strict=True):
            piece = token_bytes(kind, token)
            assert whole[at : at + len(piece)] == piece
            of_bytes = weights[at : at + len(piece)]
            # A token that also stands for untrained text is not trained.
            assert weight == min(of_bytes)
            at += len(piece)
        assert at == len(whole)
        usual = as_usual.encode(record)  # A policy changes no id.
        assert usual == NOTHING_TRAINED or usual[0].tokens.tolist() == example.tokens.tolist()
        checked += 1
    assert checked > 55 and checked + dropped == 80


# Templates and policies, by hand.

HELLO = "<think>\nHello? Hm.\n</think>\n\n"
SO = "<think>\nWell: So.\n</think>\n\n"
EMPTY = "<think>\n\n</think>\n\n"
FIRST = user("Hi") + assistant("Hello<|im_end|>")
WHY = user("Why?")


@pytest.mark.parametrize(
    ("template", "messages", "policy", "expected"),
    [
        (
            "qwen3",
            THOUGHTS,
            {"train_thinking": False},
            [
                user("Hi") + assistant(f"{HELLO}«Hello<|im_end|>»"),
                FIRST + WHY + assistant(f"{SO}«So.<|im_end|>»"),
            ],
        ),
        (
            "chatml",
            IN_TEXT,
            {"train_thinking": False},
            [
                user("Hi")
                + assistant(f"{HELLO}«Hello<|im_end|>»")
                + WHY
                + assistant(f"{SO}«So.<|im_end|>»")
            ],
        ),
        (
            "chatml",
            IN_TEXT,
            {"earlier_thinking": "drop"},
            [
                user("Hi") + assistant(f"«{HELLO}Hello<|im_end|>»"),
                FIRST + WHY + assistant(f"«{SO}So.<|im_end|>»"),
            ],
        ),
        (
            "chatml",
            IN_TEXT,
            {"earlier_thinking": "drop", "train_on": "last"},
            [FIRST + WHY + assistant(f"«{SO}So.<|im_end|>»")],
        ),
        (
            "chatml",
            [*CHAT[:2], *IN_TEXT[2:]],  # Without a thought in it, a round needs no own example.
            {"earlier_thinking": "drop"},
            [user("Hi") + assistant("«Hello<|im_end|>»") + WHY + assistant(f"«{SO}So.<|im_end|>»")],
        ),
        (
            "chatml",
            CHAT,
            {"empty_thinking": "train", "train_on": "last"},
            [
                user("Hi")
                + assistant(f"{EMPTY}Hello<|im_end|>")
                + WHY
                + assistant(f"«{EMPTY}So.<|im_end|>»")
            ],
        ),
        (
            "qwen3",
            [CHAT[0], THOUGHTS[1], *CHAT[2:]],
            {"empty_thinking": "mask"},
            [
                user("Hi") + assistant(f"«{HELLO}Hello<|im_end|>»"),
                FIRST + WHY + assistant(f"{EMPTY}«So.<|im_end|>»"),
            ],
        ),
        (
            "llama2",
            [SYSTEM, *CHAT],
            {"train_roles": ("system", "user")},
            [
                "<s>[INST] <<SYS>>\n«Be kind.»\n<</SYS>>\n\n«Hi» [/INST] Hello </s>"
                "<s>[INST] «Why?» [/INST] So. </s>"
            ],
        ),
        (
            "qwen3",  # Each further turn is in the example of the next answer.
            CHAT,
            {"train_roles": ("user", "assistant")},
            [
                "<|im_start|>user\n«Hi<|im_end|>»\n" + assistant(f"«{EMPTY}Hello<|im_end|>»"),
                FIRST
                + "<|im_start|>user\n«Why?<|im_end|>»\n"
                + assistant(f"«{EMPTY}So.<|im_end|>»"),
            ],
        ),
    ],
)
def test_texts_and_trained_parts_by_hand(template, messages, policy, expected):
    assert texts(template, {"messages": messages}, **policy) == expected


@pytest.mark.parametrize("style", tok.STYLES)
def test_a_call_that_is_not_trained_takes_its_stop_with_it(style):
    row = {"messages": CALLING, "tools": TOOLS}
    call = '\n<tool_call>\n{"name": "f", "arguments": {"x": "é"}}\n</tool_call><|im_end|>'
    made = texts("qwen3", row, style, train_tool_calls=False)
    # Some put a space behind a control token.
    first, second = (text.replace("|> ", "|>").replace("|>» ", "|>»") for text in made)
    assert first.endswith(f"assistant\n«{EMPTY}Let me see f.»{call}\n")
    assert second.endswith(f"«{EMPTY}Seven.<|im_end|>»\n") and f"see f.{call}\n" in second
    # A turn of nothing but a call is no example.
    [only] = texts("chatml", {"messages": hermes("")}, style, train_tool_calls=False)
    assert only.count("«") == 1 and "«Seven.<|im_end|>»" in only
    [both] = texts("chatml", {"messages": hermes("See:\n")}, style, train_tool_calls=False)
    assert "assistant\n«See:»\n<tool_call>" in both
    one = {"messages": hermes("")[:2]}
    assert texts("chatml", one, style, train_tool_calls=False) == NOTHING_TRAINED


def test_an_example_of_which_nothing_is_left_to_train_does_not_drop_the_others():
    row = {"messages": CALLED, "tools": TOOLS}
    how = named_formatter("qwen3", "byte_level", train_tool_calls=False, train_thinking=False)
    [example] = how.encode(parse_record(row, "x"))
    assert shown(how, example).endswith(f"{EMPTY}«Seven.<|im_end|>»\n")
    # Nothing is repeated, as the first example is none.
    assert not example.notes.get("context tokens repeated")


def hermes(text):
    """A conversation with its call in the text, as Hermes' data has it."""
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    return [
        CHAT[0],
        {"role": "assistant", "content": text + call},
        {"role": "tool", "content": "7"},
        {"role": "assistant", "content": "Seven."},
    ]


# As DeepSeek's R1: the prompt opens a thought, and a thought is part of the text.
PREFILLED = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1].lstrip() }}{% else %}{{ m.content }}{% endif %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
# As GPT-OSS's channels.
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}<|start|>assistant"
    "{% if m.thinking %}<|channel|>analysis<|message|>{{ m.thinking }}<|end|><|start|>assistant"
    "{% endif %}<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{% else %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
# As GLM 4.7's option.
KEEPS = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}"
    "{% if m.reasoning_content and (loop.last or not (clear_thinking | default(true))) %}"
    "{{ '<think>' ~ m.reasoning_content ~ '</think>' }}{% endif %}"
    "{{ m.content ~ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_thought_that_the_prompt_opens_is_masked_up_to_its_end():
    how = chat_formatter(PREFILLED, train_thinking=False)
    first, second = how.encode(parse_record({"messages": IN_TEXT}, "x"))
    assert shown(how, first) == user("Hi") + assistant(f"{HELLO}«Hello<|im_end|>»")
    assert shown(how, second) == FIRST + WHY + assistant(f"{SO}«So.<|im_end|>»")
    how = chat_formatter(PREFILLED, empty_thinking="mask")
    [example] = how.encode(parse_record({"messages": CHAT[:2]}, "x"))
    assert shown(how, example) == user("Hi") + assistant(f"{EMPTY}«Hello<|im_end|>»")
    assert example.prompt_length == len(how.prompt(parse_record({"messages": CHAT[:1]}, "x")))


def test_a_thought_in_a_channel_is_masked_and_the_next_header_is_trained():
    controls = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
    how = make_formatter(tok.ours("byte_level", controls), template=CHANNELS, train_thinking=False)
    [example] = how.encode(parse_record({"messages": THOUGHTS[:2]}, "x"))
    assert shown(how, example) == (
        "<|start|>user<|message|>Hi<|end|><|start|>assistant<|channel|>analysis<|message|>"
        "Hello? Hm.<|end|>«<|start|>assistant<|channel|>final<|message|>Hello<|return|>»"
    )
    assert example.notes["thinking tokens masked"] > 5


def test_thoughts_of_earlier_rounds_are_kept_by_the_templates_own_option():
    row = parse_record({"messages": THOUGHTS}, "x")
    assert len(chat_formatter(KEEPS).encode(row)) == 2
    how = chat_formatter(KEEPS, earlier_thinking="keep")
    [example] = how.encode(row)
    first = user("Hi") + assistant("«<think>Hello? Hm.</think>Hello<|im_end|>»")
    second = WHY + assistant("«<think>Well: So.</think>So.<|im_end|>»")
    assert shown(how, example) == first + second
    # What generation is prompted with begins the training ids.
    prompt = how.prompt(parse_record({"messages": THOUGHTS[:3]}, "x"))
    assert example.tokens[: len(prompt)].tolist() == prompt.tolist()
    # A row's own option wins.
    own = parse_record(
        {"messages": THOUGHTS, "chat_template_kwargs": {"clear_thinking": True}}, "x"
    )
    with pytest.raises(UserError, match="earlier_thinking='keep' cannot be kept under template"):
        how.encode(own)


@pytest.mark.parametrize("template", ["chatml", "qwen3"])
def test_prompts_begin_the_training_ids_where_earlier_thoughts_are_dropped(template):
    how = named_formatter(template, "byte_level", earlier_thinking="drop")
    rows = [IN_TEXT] if template == "chatml" else [IN_TEXT, THOUGHTS]
    for messages in rows:
        examples = how.encode(parse_record({"messages": messages}, "x"))
        for turn, example in zip((1, 3), examples, strict=True):
            prompt = how.prompt(parse_record({"messages": messages[:turn]}, "x"))
            assert example.tokens[: len(prompt)].tolist() == prompt.tolist()
            assert example.prompt_length == len(prompt)
    # Thoughts between calls of one round stay.
    calling = [CHAT[0], {**CALLED[1], "reasoning_content": "f?"}, *CALLED[2:]]
    record = parse_record({"messages": calling, "tools": TOOLS}, "x")
    assert without_earlier_thoughts(record) == record


def test_what_another_example_repeats_is_counted_against_one_for_the_conversation():
    keeping = chat_formatter(KEEPS, earlier_thinking="keep")
    splitting = chat_formatter(KEEPS)
    for messages in (THOUGHTS, [SYSTEM, *THOUGHTS, *THOUGHTS], [*CHAT, *THOUGHTS]):
        record = parse_record({"messages": messages}, "x")
        [whole] = keeping.encode(record)
        examples = splitting.encode(record)
        n_tokens = sum(len(example.tokens) for example in examples)
        repeated = sum(example.notes.get("context tokens repeated", 0) for example in examples)
        assert len(examples) > 1 and n_tokens - repeated == len(whole.tokens)
        further = [e.notes.get("further examples of a conversation", 0) for e in examples]
        assert further == [0] + [1] * (len(examples) - 1)


@pytest.mark.parametrize(
    ("template", "row", "policy", "message"),
    [
        ("qwen3", {"messages": THOUGHTS}, {"earlier_thinking": "keep"}, "earlier_thinking='keep'"),
        (CHANNELS, {"messages": CHAT[:2]}, {"empty_thinking": "train"}, "empty_thinking='train'"),
        (
            "{{ '<think>' if false }}" + KEEPS.replace("m.content ~", "m.content[-5:] ~"),
            {"messages": CHAT[:2]},
            {"empty_thinking": "mask"},
            "empty_thinking='mask'",
        ),
        (
            KEEPS.replace("'<think>'", "'Thought: '").replace("'</think>'", "'\n'"),
            {"messages": THOUGHTS[:2]},
            {"train_thinking": False},
            "train_thinking",
        ),
        (
            KEEPS.replace(
                "{{ m.content ~",
                "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
                "{{ m.content ~",
            ),
            {"messages": CALLING[:2]},
            {"train_tool_calls": False},
            "train_tool_calls",
        ),
        (
            KEEPS.replace("{{ m.content ~", "{{ (m.content | upper) ~"),
            {"messages": CHAT[:2]},
            {"train_roles": ("user",), "unwritten": "leave-out"},
            None,
        ),
        (
            KEEPS.replace("{{ m.content ~", "{{ m.content[:2] ~"),
            {"messages": [{"role": "user", "content": "Hi you"}, CHAT[1]]},
            {"train_roles": ("user",), "unwritten": "leave-out"},
            "train_roles",
        ),
    ],
)
def test_a_policy_that_a_template_does_not_keep_is_an_error_by_name(template, row, policy, message):
    controls = (*CHATML, "<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
    how = make_formatter(tok.ours("byte_level", controls), template=template, **policy)
    if message is None:
        [example] = how.encode(parse_record(row, "f.jsonl:3"))
        assert shown(how, example).startswith("<|im_start|>user\n«HI<|im_end|>»")
        return
    with pytest.raises(UserError) as raised:
        how.encode(parse_record(row, "f.jsonl:3"))
    text = str(raised.value)
    assert f"format.{message}" in text and "cannot be kept under template" in text
    assert "\n" not in text


def test_a_row_has_policies_of_its_own():
    row = {"messages": THOUGHTS, "train_thinking": False, "train_on": "last"}
    assert texts("qwen3", row) == [FIRST + WHY + assistant(f"{SO}«So.<|im_end|>»")]
    row = {"messages": CHAT, "roles_to_train": ["human", "gpt"], "train_on": "last_round"}
    assert texts("chatml", row) == [
        FIRST + "<|im_start|>user\n«Why?<|im_end|>»\n" + assistant("«So.<|im_end|>»")
    ]
    row = {"messages": CHAT[:2], "empty_thinking": "mask"}
    assert texts("chatml", row) == [user("Hi") + assistant(f"{EMPTY}«Hello<|im_end|>»")]
    row = {"messages": CHAT[:2], "enable_thinking": False}
    assert texts("qwen3", row) == [user("Hi") + assistant(f"{EMPTY}«Hello<|im_end|>»")]
    both = {"messages": THOUGHTS, "train_thinking": True}
    assert texts("qwen3", both, train_thinking=False) == texts("qwen3", {"messages": THOUGHTS})


def test_an_encoder_decoder_masks_a_thought_and_trains_an_assistant_alone():
    tokenizer = small_tokenizer("huggingface")
    options = {"architecture": "encoder_decoder", "template": "chatml"}
    how = make_formatter(tokenizer, **options, train_thinking=False, earlier_thinking="drop")
    first, second = how.encode(parse_record({"messages": IN_TEXT}, "x"))
    assert shown(how, first) == f"{HELLO}«Hello<|endoftext|>»"
    assert shown(how, second) == f"{SO}«So.<|endoftext|>»"
    read = tokenizer.decode(second.encoder_tokens.tolist(), keep_special=True)
    assert "Hello? Hm." not in read and "Hello" in read
    with pytest.raises(UserError, match="format.train_roles: user: an encoder-decoder trains"):
        make_formatter(tokenizer, **options, train_roles=("user",))
    own = parse_record({"messages": CHAT, "train_roles": ["user"]}, "f:1")
    with pytest.raises(UserError, match="f:1: field 'train_roles': user: an encoder-decoder"):
        make_formatter(tokenizer, **options).encode(own)
    with pytest.raises(UserError, match="format.train_roles: expected at least one role"):
        make_formatter(tokenizer, template="chatml", train_roles=())


def test_ranges_are_looked_for_after_the_thought():
    detail = [{"begin_offset": 0, "end_offset": 0, "train": True}]
    messages = [CHAT[0], {**CHAT[1], "reasoning_content": "Hello Hello", "train_detail": detail}]
    [only] = texts("qwen3", {"messages": messages})
    assert only == user("Hi") + assistant("«<think>\nHello Hello\n</think>\n\nH»ello«<|im_end|>»")


def test_the_first_token_of_a_row_is_never_trained():
    how = named_formatter("plain", "byte_level", train_roles=("user", "assistant"))
    [example] = how.encode(parse_record({"inputs": "Hi you", "targets": "x"}, "x"))
    assert example.weights[0] == 0 and example.weights[1] == 1 and example.prefix_length == 1


def test_a_masked_thought_is_no_prefix_of_the_bidirectional_part():
    how = named_formatter("chatml", "byte_level", train_thinking=False)
    [example] = how.encode(parse_record({"messages": IN_TEXT[:2]}, "x"))
    prompt = how.prompt(parse_record({"messages": IN_TEXT[:1]}, "x"))
    assert example.prefix_length == example.prompt_length == len(prompt)
    assert int((example.weights > 0).argmax()) > len(prompt)


@pytest.mark.parametrize("template", ["chatml", "qwen3", "llama3", "mistral_v3", "gemma"])
def test_ids_with_masks_are_those_of_transformers(template):
    pytest.importorskip("transformers")
    how = named_formatter(template, "byte_level", train_thinking=False, train_roles=("user",))
    from ift_jax.text.chat_templates.registry import NAMES

    reference = tok.theirs("byte_level", NAMES[template], how.template_source)
    compared = 0
    for name in ("single", "code", "list", "unicode"):
        messages = SHAPES[name]["messages"]
        [example] = how.encode(parse_record({"messages": messages[:2]}, "x"))
        ids = reference.apply_chat_template(messages[:2], return_dict=True)["input_ids"]
        prompted = reference.apply_chat_template(
            messages[:1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        assert example.tokens.tolist() in (ids, prompted)
        trained = how.tokenizer.decode(example.tokens[example.weights > 0].tolist())
        assert trained == messages[0]["content"].strip()
        compared += 1
    assert compared == 4
