"""Conversations of many shapes, as fields of records."""

SYSTEM = {"role": "system", "content": "Be kind."}
CHAT = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "id": "abc123def", "function": {"name": "f", "arguments": {"x": "é"}}}
CALLED = [
    CHAT[0],
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "7", "tool_call_id": "abc123def"},
    {"role": "assistant", "content": "Seven."},
]
THOUGHTS = [
    {**m, "reasoning_content": thought} if thought else m
    for m, thought in zip(CHAT, ("", "Hm.", "", "\nWell.\n"), strict=True)
]
RECORDS = {
    "chat": {"messages": CHAT},
    "system": {"messages": [SYSTEM, *CHAT[:2]]},
    "system2": {"messages": [SYSTEM, *CHAT]},
    "tools": {"messages": CALLED, "tools": TOOLS},
    "thinking": {"messages": THOUGHTS},
}


def rounds(*texts):
    """Messages of the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


CODE = "Here:\n\n```python\ndef f(x):\n    return {'a': x}\n```\nDone."
LIST = "Three things:\n\n1. apples\n2. files\n\n* one\n* two\n\nThat is all"
SHAPES = {
    "single": {"messages": rounds("What is 1 + 1?", "2")},
    "system": {"messages": [SYSTEM, *rounds("What is the sum?", "It is 23.")]},
    "two rounds": {"messages": rounds("Hi there", "Hello!", "Count apples", "456 apples.")},
    "system, three rounds": {
        "messages": [SYSTEM, *rounds("a b", "c", "d  e", "f g h", "I'm here.", "So it is, said 5")]
    },
    "code": {"messages": rounds("Write f.\nIt returns a dict.", CODE)},
    "unicode": {"messages": rounds("Sag: Größe 😀 你好 שלום", "Größe é 😀. 你好")},
    "list": {"messages": rounds("List, please:", LIST, "More\n\n\tthings?", LIST)},
    "empty answer": {"messages": rounds("Say nothing.", "", "And now?", "Something")},
    "tools": RECORDS["tools"],
    "tools, two calls": {
        "messages": [
            SYSTEM,
            *rounds("Hi", "Hello"),
            {"role": "user", "content": "Call it"},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": '{"a": [1, 2]}', "tool_call_id": "abc123def"},
            {"role": "assistant", "content": "It says 1.\n"},
            *rounds("Thanks", "Well."),
        ],
        "tools": TOOLS,
    },
    "thinking": RECORDS["thinking"],
    "thinking in the text": {
        "messages": rounds("Why?", "<think>\nHm.\n</think>\n\nSo.", "Really?", "Yes")
    },
}
