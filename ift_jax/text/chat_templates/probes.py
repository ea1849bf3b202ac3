"""Short conversations that show how a chat template treats answers."""

from ift_jax.text.records import Message, Record

_CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}, "id": "123456789"}
_TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}


def probes(source: str) -> list[Record]:
    """Return conversations that a template may write differently at the end than in the middle.

    Args:
        source: The Jinja text of the template. Thoughts and tools are probed if it mentions them.
    """
    question, answer = Message("user", "1 + 1?"), Message("assistant", "2")
    second_round = (Message("user", "Why?"), Message("assistant", "So."))
    system = Message("system", "Be brief.")
    thought_in_text = Message("assistant", "<think>\nAdd.\n</think>\n\n2")
    conversations = [
        (question, answer, *second_round),
        (system, question, answer, *second_round),
        (question, thought_in_text, *second_round),
    ]
    if "reasoning_content" in source or "thinking" in source:
        thought_apart = Message("assistant", "2", reasoning_content="Add.")
        conversations.append((question, thought_apart, *second_round))
    records = [Record(messages, where="probe") for messages in conversations]
    if "tool_calls" in source and "tools" in source:
        call = Message("assistant", "", tool_calls=(_CALL,))
        result = Message("tool", "7", tool_call_id="123456789", name="f")
        messages = (question, call, result, answer, *second_round)
        records.append(Record(messages, where="probe", tools=(_TOOL,)))
    return records
