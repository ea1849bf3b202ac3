"""The named templates beside what other packages write of the same conversations.

The references are the templates in TRL's wheel, rendered by `transformers`, and PyPI's `renderers`,
which write ids without Jinja. `python -m tests.text.chat_templates.trl_table` writes the table.
"""

import dataclasses

from ift_jax.text.chat_templates.registry import NAMES
from tests.text import chat_tokenizers as tok
from tests.text.chat_templates import trl_table
from tests.text.chat_templates.against_transformers import (
    CALL,
    CONVERSATIONS,
    TOOL,
    Comparison,
    TransformersReference,
    compare,
    uses,
)
from tests.text.formatters import make_formatter
from tests.text.shapes import SYSTEM, rounds

BEGIN, END = "<!-- named: begin -->\n", "<!-- named: end -->\n"
PLAN = {
    "type": "function",
    "function": {
        "name": "plan",
        "description": "Plans.\nA trip.",
        "parameters": {
            "type": "object",
            "properties": {
                "where": {"type": "string", "description": "The place.", "enum": ["a", "b"]},
                "days": {"type": "integer", "description": "How many.", "default": 3},
                "rate": {"type": "number"},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "Any."},
                "stops": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {"x": {"type": "integer", "description": "X."}},
                        "required": ["x"],
                    },
                },
                "who": {
                    "type": "object",
                    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
                    "required": ["name"],
                },
                "soon": {"type": "boolean", "nullable": True},
            },
            "required": ["where", "days"],
        },
    },
}
_ARGUMENTS = {"where": "a", "days": 2, "soon": True, "rate": 1.5, "tags": ["é", 1], "who": {"b": 0}}
PLANNED = {
    "id": "987654321",
    "type": "function",
    "function": {"name": "plan", "arguments": _ARGUMENTS},
}


def _calls(*calls):
    return {"role": "assistant", "content": "", "tool_calls": list(calls)}


def _result(call, content):
    name = call["function"]["name"]
    return {"role": "tool", "content": content, "tool_call_id": call["id"], "name": name}


_FURTHER = {
    "white space": {
        "messages": [
            {"role": "system", "content": " Be kind.\n"},
            *rounds(" u \n", " \n a \n", "\nu", "\n\na"),
        ]
    },
    "rich call": {
        "messages": [
            *rounds("Go"),
            _calls(PLANNED) | {"reasoning_content": "Hm."},
            _result(PLANNED, '{"a": "é"}'),
            {"role": "assistant", "content": "Done.", "reasoning_content": "Fine."},
            *rounds("And?", "Well."),
        ],
        "tools": [PLAN],
    },
    "calls in a row": {
        "messages": [
            *rounds("Go"), _calls(CALL), _result(CALL, "7"), _calls(PLANNED), _result(PLANNED, "8"),
            *rounds("", "Done.", "And?", "Well.")[1:],
        ],
        "tools": [TOOL, PLAN],
    },
    "two calls": {
        "messages": [
            SYSTEM, *rounds("Go"), _calls(CALL, PLANNED), _result(CALL, "7"), _result(PLANNED, "8"),
            *rounds("", "Done.")[1:],
        ],
        "tools": [TOOL, PLAN],
    },
}  # fmt: skip
_LEFT_OUT = ("code", "call, no tools listed")  # Others show the same.
ALL = {name: c for name, c in CONVERSATIONS.items() if name not in _LEFT_OUT} | _FURTHER

_THOUGHTS = ("thought", "thought in the text", "call with a thought", "rich call")
_TAGS = ("think", "tool_call", "tool_response")
_QWEN = tuple(f"<{end}{tag}>" for tag in _TAGS for end in ("", "/"))
_GLM = (*_QWEN, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
TRL, RENDERERS = "trl", "renderers"
# A named template, a package, the reference's name in it -> tokens that its tokenizers also have.
REFERENCES = {
    ("command-r", TRL, "cohere"): (),
    ("deepseek-v3", RENDERERS, "deepseek-v3"): (),
    ("gemma", TRL, "gemma"): (),
    ("gemma3", TRL, "gemma3"): (),
    ("gemma4", TRL, "gemma4_v5"): (),
    ("gemma4", RENDERERS, "gemma4"): (),
    ("glm4.5", TRL, "glm4moe"): (),
    ("glm4.5", TRL, "glm4moe_training"): (),
    ("glm4.5", RENDERERS, "glm-4.5"): _GLM,
    ("gpt-oss", TRL, "gptoss"): (),
    ("llama3", TRL, "llama3"): (),
    ("llama3.1", TRL, "llama3_1"): (),
    ("llama3.1", RENDERERS, "llama-3"): (),
    ("nemotron3", TRL, "nemotron_3_nano"): (),
    ("nemotron3", RENDERERS, "nemotron-3"): _QWEN,
    ("qwen2.5", TRL, "qwen2_5"): (),
    ("qwen3", TRL, "qwen3"): (),
    ("qwen3", RENDERERS, "qwen3"): _QWEN,
    ("qwen3.5", TRL, "qwen3_5_think"): (),
    ("qwen3.5", RENDERERS, "qwen3.5"): _QWEN,
    ("qwen3.5_nothink", TRL, "qwen3_5_nothink"): (),
    ("qwen3.6", TRL, "qwen3_6"): (),
    ("qwen3.6", RENDERERS, "qwen3.6"): _QWEN,
    ("qwen3.8", TRL, "qwen3_8"): (),
    ("qwen3.8", RENDERERS, "qwen3.8"): _QWEN,
}
_NO_SYSTEM = "it refuses a system's turn, which ours puts before the user's, as Gemma 3's"
_THOUGHT_IN_TEXT = (
    "it writes an empty thought before the text's own, which ours takes as the thought"
)
# A reference -> conversations -> what it writes otherwise, and why ours does not.
DIFFERENCES: dict[tuple[str, str, str], dict[tuple[str, ...], str]] = {
    ("gemma", TRL, "gemma"): {("system", "white space"): _NO_SYSTEM},
    ("qwen3.8", TRL, "qwen3_8"): {("thought in the text",): _THOUGHT_IN_TEXT},
    ("qwen3.8", RENDERERS, "qwen3.8"): {("thought in the text",): _THOUGHT_IN_TEXT},
    ("glm4.5", RENDERERS, "glm-4.5"): {
        tuple(
            ALL
        ): "equal ids; it takes the newline after `<|assistant|>` as given, but prompts without"
    },
}
# The only fault that a difference may be, where it is as small.
_ALONE = {("glm4.5", RENDERERS, "glm-4.5"): r"trained: '\n'"}


class _Vocabulary:
    """A tokenizer of `transformers` for `renderers`: BOS has the name that a renderer asks for.

    Tokens of images, which no conversation has, are the one for padding.
    """

    _BOS = ("<bos>", "<｜begin▁of▁sentence｜>", "<|begin_of_text|>")

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def convert_tokens_to_ids(self, token):
        found = self._tokenizer.convert_tokens_to_ids("<s>" if token in self._BOS else token)
        return found if found != self._tokenizer.unk_token_id else self._tokenizer.pad_token_id

    def encode(self, text, **options):
        return self._tokenizer.encode("<s>" if text in self._BOS else text, **options)

    def __call__(self, *args, **options):
        return self._tokenizer(*args, **options)


class RenderersReference:
    """Gives the ids of a renderer, and what it says that the model generates."""

    def __init__(self, name, tokenizer):
        from renderers import config_from_name, create_renderer

        self._renderer = create_renderer(_Vocabulary(tokenizer), config_from_name(name))

    def ids(self, messages, tools, *, prompt=False):
        return self._renderer.render_ids(messages, tools=tools, add_generation_prompt=prompt)

    def mask(self, messages, tools):
        return self._renderer.render(messages, tools=tools).sampled_mask


@dataclasses.dataclass
class Row:
    """A named template beside one reference."""

    name: str
    package: str
    reference: str
    results: dict[str, Comparison] = dataclasses.field(default_factory=dict)

    @property
    def differences(self):
        """Why the reference writes a conversation otherwise, by conversation."""
        listed = DIFFERENCES.get((self.name, self.package, self.reference), {})
        return {title: why for titles, why in listed.items() for title in titles}

    @property
    def unexplained(self):
        """The faults without a reason, and the reasons without a fault."""
        alone = _ALONE.get((self.name, self.package, self.reference))
        found = []
        for title, result in self.results.items():
            known = title in self.differences
            if known and not result.faults and not result.refused:
                found.append(f"{title} is equal")
            found += [
                f"{title}: {fault}"
                for fault in result.faults
                if not known or alone not in (None, fault)
            ]
        return [f"{self.name}, {self.package} {self.reference}: {item}" for item in found]


def row(key):
    """Compares a named template with a reference on all conversations."""
    name, package, reference_name = key
    added = REFERENCES[key]
    source = ""
    if package == TRL:
        source = (trl_table.folder() / f"{reference_name}.jinja").read_text("utf-8")
    control = tuple(sorted({*trl_table.controls(source), *NAMES[name]}))
    options = (trl_table.DATE,) if "strftime_now" in source else ()
    formatter = make_formatter(
        tok.ours("byte_level", control, added=added),
        template=name,
        template_options=options,
        over_length="error",
    )
    if package == TRL:
        dated = make_formatter(
            tok.ours("byte_level", control, source), template="model", template_options=options
        )
        reference = TransformersReference(tok.theirs("byte_level", control, dated.template_source))
    else:
        reference = RenderersReference(reference_name, tok.theirs("byte_level", control, "", added))
    found = Row(*key)
    thoughts = () if name.endswith("_nothink") else _THOUGHTS
    for title, conversation in ALL.items():
        if title in _THOUGHTS and title not in thoughts:
            continue  # Its prompt rules thinking out.
        sources = (formatter.template_source, source or formatter.template_source)
        if all(uses(text, conversation) for text in sources):
            found.results[title] = compare(formatter, reference, conversation)
    return found


def rows():
    return [row(key) for key in REFERENCES]


def table(found):
    lines = ["| template | reference | equal | differences by rule | otherwise |"]
    lines.append("|---|---|---|---|---|")
    for item in found:
        results = item.results.values()
        equal = [result for result in results if result.n_examples and not result.faults]
        notes = sorted(set().union(*(result.notes for result in equal)))
        listed = DIFFERENCES.get((item.name, item.package, item.reference), {})
        reasons = [
            f"{'all' if titles == tuple(ALL) else ', '.join(titles)}: {why}"
            for titles, why in listed.items()
        ]
        cells = (
            f"`{item.name}`",
            f"{item.package} `{item.reference}`",
            f"{len(equal)} of {len(item.results)}",
            "; ".join(notes),
            "; ".join(reasons + trl_table.refusals(item.results)),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
