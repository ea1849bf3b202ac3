"""What `apply_chat_template` of `transformers`, or another reference, gives beside ours."""

import dataclasses
import json

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.message_form import message_form
from ift_jax.text.dropped import Dropped
from ift_jax.text.rows.parse_record import parse_record
from tests.text.shapes import SYSTEM, rounds

TOOL = {
    "type": "function",
    "function": {
        "name": "count",
        "description": "Counts things.",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string", "description": "What is counted."}},
            "required": ["what"],
        },
    },
}
CALL = {"id": "123456789", "type": "function", "function": {"name": "count", "arguments": {}}}
CALL["function"]["arguments"] = {"what": "apples"}


def _called(*, thought="", text="", more=()):
    call = {"role": "assistant", "content": text, "tool_calls": [CALL]}
    call |= {"reasoning_content": thought} if thought else {}
    result = {"role": "tool", "content": "7", "tool_call_id": CALL["id"], "name": "count"}
    return [*rounds("Count, please."), call, result, *rounds("", "Seven.")[1:], *more]


def _thinking(*messages):
    return [
        m | ({"reasoning_content": "Let me see."} if m["role"] == "assistant" else {})
        for m in messages
    ]


TWO_ROUNDS = rounds("Hi there", "Hello!", "Count apples", "456 apples.")
CONVERSATIONS = {
    "chat": {"messages": TWO_ROUNDS},
    "system": {"messages": [SYSTEM, *TWO_ROUNDS]},
    "code": {"messages": rounds("Code?", "x = [\n    1,\n]\n\nDone.", "Ok", "é 😀")},
    "thought": {"messages": _thinking(*TWO_ROUNDS)},
    "thought in the text": {
        "messages": rounds("Why?", "<think>\nHm.\n</think>\n\nSo.", "Really?", "Yes")
    },
    "call": {"messages": _called(), "tools": [TOOL]},
    "call, no tools listed": {"messages": _called()},
    "call with a thought": {
        "messages": _called(thought="I count.", more=rounds("Thanks", "Ok")),
        "tools": [TOOL],
    },
    "call with a text": {"messages": _called(text="I count."), "tools": [TOOL]},
}


class TransformersReference:
    """Gives the ids of `apply_chat_template`, and the mask where the template is tagged.

    It takes messages in the form that its template reads.
    """

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.tagged = "generation %}" in tokenizer.chat_template
        self._form = message_form(self._text)

    def _text(self, messages):
        try:
            return self.tokenizer.apply_chat_template(messages, tokenize=False)
        except Exception as error:
            raise UserError(str(error)) from error

    def ids(self, messages, tools, *, prompt=False):
        return self._apply(messages, tools, add_generation_prompt=prompt)["input_ids"]

    def mask(self, messages, tools):
        """Whether each token is trained; None if the reference does not say."""
        if not self.tagged:
            return None
        return self._apply(messages, tools, return_assistant_tokens_mask=True)["assistant_masks"]

    def _apply(self, messages, tools, **options):
        return self.tokenizer.apply_chat_template(
            self._form.write(messages), tools=tools, tokenize=True, return_dict=True, **options
        )


@dataclasses.dataclass
class Comparison:
    """How the examples of a conversation differ from what `transformers` gives.

    Attributes:
        n_examples: The examples; 0 if the conversation is refused.
        refused: Why it is refused.
        notes: The differences that have a rule.
        faults: Those that have none.
    """

    n_examples: int = 0
    refused: str = ""
    notes: set[str] = dataclasses.field(default_factory=set)
    faults: list[str] = dataclasses.field(default_factory=list)


STOP_ADDED = "the stop that the next turn begins with is added"
EDGE = "a token would cross an answer's edge"
WHITE_SPACE = "white space after the stop"
REWRITTEN = "an answer stands behind its own prompt, which the template then rewrites"
PROMPTED = "what the prompt already says"


def compare(formatter, reference, conversation):
    """Compares a conversation's examples, masks and prompts with those of a reference.

    Args:
        formatter: The formatter.
        reference: Has the methods of `TransformersReference`.
        conversation: The fields of the record.
    """
    found = Comparison()
    record = parse_record(conversation, "x")
    try:
        examples = formatter.encode(record)
    except UserError as error:
        found.refused = str(error).removeprefix("x: ")
        return found
    if isinstance(examples, Dropped):
        found.refused = _fault(formatter, record) or examples.reason
        return found
    found.n_examples = len(examples)
    messages = formatter._renderer.prepare(record).messages
    tools = conversation.get("tools")
    answers = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    ends = answers if len(examples) > 1 else [len(messages) - 1]
    for example, end in zip(examples, ends, strict=True):
        try:
            ids = reference.ids(messages[: end + 1], tools)
        except Exception as error:
            found.faults.append(f"the reference refuses it: {' '.join(str(error).split())[:80]}")
            return found
        ours = example.tokens.tolist()
        if ours[: len(ids)] == ids and len(ours) == len(ids) + 1:
            ours.pop()
            found.notes.add(STOP_ADDED)
        text = formatter.tokenizer.decode(ours, keep_special=True)
        if ours != ids:
            if _rewritten(reference, messages[: end + 1], tools, ours):
                found.notes.add(REWRITTEN)
            elif text == formatter.tokenizer.decode(ids, keep_special=True):
                found.notes.add(EDGE)
            else:
                found.faults.append(f"ids: {text!r}")
            continue
        mask = reference.mask(messages[: end + 1], tools)
        if mask is not None:
            mask = [*mask, 1][: len(example.tokens)]  # The stop that is added is trained.
            _compare_masks(formatter, example, mask, found, only_last=len(examples) > 1)
    for k, turn in enumerate(answers):
        prompt = formatter.prompt(parse_record(_before(conversation, turn), "x")).tolist()
        if prompt != reference.ids(messages[:turn], tools, prompt=True):
            found.faults.append(f"prompt of turn {turn}")
        example = examples[0] if len(examples) == 1 else examples[k]
        if example.tokens[: len(prompt)].tolist() != prompt:
            found.notes.add("thinking on or off as in the answer, not as in the prompt")
    return found


def _rewritten(reference, messages, tools, ours):
    """Whether an example begins with the prompt of its answer, which the whole text rewrites."""
    prompt = reference.ids(messages[:-1], tools, prompt=True)
    return ours[: len(prompt)] == prompt != reference.ids(messages, tools)[: len(prompt)]


def _fault(formatter, record):
    """Why the first answer that is not found is not found."""
    renderer = formatter._renderer
    chat = renderer.prepare(record)
    for turn in chat.answers:
        if renderer.answers.last_answer(chat, turn) is None:
            return (
                f"turn {turn}: {renderer.answers.fault(chat, turn, record.messages[turn].content)}"
            )
    return ""


def _before(conversation, turn):
    return {**conversation, "messages": conversation["messages"][:turn]}


def _compare_masks(formatter, example, mask, found, *, only_last):
    """Notes what the author's tags train and we do not; anything else is a fault."""
    trained = example.weights > 0
    decode = formatter.tokenizer.decode
    controls = set(formatter.tokenizer.special_tokens.values())
    tokens = example.tokens.tolist()
    for i, (ours, theirs) in enumerate(zip(trained, mask, strict=True)):
        if ours and not theirs:
            found.faults.append(f"trained: {decode([tokens[i]], keep_special=True)!r}")
        if theirs and not ours:
            if only_last and i < example.prompt_length:
                continue  # An earlier answer, or the header of the last one.
            before = trained[:i].nonzero()[0]
            is_tail = len(before) and tokens[before[-1]] in controls
            between = decode(tokens[before[-1] + 1 : i + 1], keep_special=True) if is_tail else "-"
            after = trained[i:].nonzero()[0]
            if not between.strip():
                found.notes.add(WHITE_SPACE)
            elif len(after) and all(mask[i : i + after[0]]):
                found.notes.add(PROMPTED)
            else:
                found.faults.append(f"untrained: {decode([tokens[i]], keep_special=True)!r}")


def uses(source, conversation):
    """Whether a template mentions what a conversation has: calls, tools, thoughts."""
    text = json.dumps(conversation)
    return ("tool_calls" not in text or "tool_calls" in source) and (
        "reasoning_content" not in text or "reasoning_content" in source or "thinking" in source
    )
