"""Chat templates as data, and the rendering of a conversation into segments."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from ift_jax.errors import UserError
from ift_jax.text.records import Message, Record, did_you_mean

# In a template's strings these stand for the tokenizer's own tokens.
BOS = "{bos}"
EOS = "{eos}"


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a template writes around the content of a message of one role.

    `header` + content + `stop` + `after`. In an assistant's trained turn the content and the
    stop are trained, and `header` is the generation prompt; so `stop` must be one token.
    """

    header: str
    stop: str = ""
    after: str = ""


@dataclasses.dataclass(frozen=True)
class ChatTemplate:
    """A chat format.

    Attributes:
        name: the name in a config.
        roles: the turn of each role that the format knows.
        controls: the strings that are markers in this format; a tokenizer that is trained
            for it makes each of them one control token.
        bos: one BOS token at the very beginning, where the tokenizer has one.
        after_last: the last message is followed by its `after` too.
    """

    name: str
    roles: Mapping[str, Turn]
    controls: tuple[str, ...] = ()
    bos: bool = False
    after_last: bool = False


_CHATML = "<|im_start|>", "<|im_end|>"
TEMPLATES: Mapping[str, ChatTemplate] = MappingProxyType(
    {
        template.name: template
        for template in (
            ChatTemplate(
                name="chatml",
                roles={
                    role: Turn(f"<|im_start|>{role}\n", "<|im_end|>", "\n")
                    for role in ("system", "user", "assistant", "tool")
                },
                controls=_CHATML,
                after_last=True,
            ),
            # Tulu 2 and 3 (Ivison et al. 2023; Lambert et al. 2024); OLMo-2 is the same. The
            # markers are ordinary text in the released tokenizers.
            ChatTemplate(
                name="tulu",
                roles={
                    "system": Turn("<|system|>\n", after="\n"),
                    "user": Turn("<|user|>\n", after="\n"),
                    "assistant": Turn("<|assistant|>\n", EOS, "\n"),
                },
                controls=("<|system|>", "<|user|>", "<|assistant|>"),
                bos=True,
            ),
            # The texts as they are, one line after the other, each answer ended by EOS.
            ChatTemplate(
                name="plain",
                roles={
                    "system": Turn("", after="\n"),
                    "user": Turn("", after="\n"),
                    "assistant": Turn("", EOS),
                    "tool": Turn("", after="\n"),
                },
            ),
        )
    }
)


def get_template(name: str) -> ChatTemplate:
    """The template of that name.

    Raises:
        UserError: there is none; the nearest name is given.
    """
    if name not in TEMPLATES:
        raise UserError(
            f"format.template: no template {name!r}{did_you_mean(name, TEMPLATES)};"
            f" expected one of {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[name]


class Segment(NamedTuple):
    """A stretch of a rendered conversation that is tokenised by itself.

    Attributes:
        text: in a control segment `{bos}` and `{eos}` stand for the tokenizer's tokens.
        kind: "control" is written by the template, "text" is a message's content.
        weight: of the loss of its tokens; 0 is untrained.
        role: of the message.
        turn: the index of the message; one more than the last for a generation prompt.
        answer: an assistant's content or stop, which is what generation would write.
    """

    text: str
    kind: str
    weight: float
    role: str
    turn: int
    answer: bool = False


def turn_weights(messages: Sequence[Message], train_on: str = "all") -> tuple[float, ...]:
    """The loss weight of each message; 0 for all but the assistant's trained turns.

    Args:
        messages: the conversation.
        train_on: "all" assistant turns or the "last" one; a turn's own weight multiplies.
    """
    answers = [i for i, message in enumerate(messages) if message.role == "assistant"]
    trained = set(answers if train_on == "all" else answers[-1:])
    return tuple(
        (1.0 if message.weight is None else message.weight) if i in trained else 0.0
        for i, message in enumerate(messages)
    )


def render(
    record: Record,
    template: ChatTemplate,
    *,
    train_on: str = "all",
    add_generation_prompt: bool = False,
) -> list[Segment]:
    """The segments of a conversation; their texts, joined, are the rendered text.

    What stands between two contents is one segment, as far as it is untrained: what follows
    a turn goes together with the next turn's header. A message for which the template writes
    nothing (no header, content or stop) leaves no trace.

    Args:
        record: the conversation.
        template: the format.
        train_on: see `turn_weights`.
        add_generation_prompt: end with the header of an assistant's turn.

    Raises:
        UserError: a role that the template does not know.
    """
    segments: list[Segment] = []
    pending = BOS if template.bos else ""
    messages = record.messages
    weights = turn_weights(messages, train_on)
    for i, (message, weight) in enumerate(zip(messages, weights, strict=True)):
        role, answer = message.role, message.role == "assistant"
        turn = template.roles.get(role)
        if turn is None:
            raise UserError(
                f"{record.where}: messages[{i}].role: template {template.name!r} has no role"
                f" {role!r}; expected one of {', '.join(template.roles)}"
            )
        if not (turn.header or message.content or turn.stop):
            continue
        if control := pending + turn.header:
            segments.append(Segment(control, "control", 0.0, role, i))
        if message.content:
            segments.append(Segment(message.content, "text", weight, role, i, answer))
        if turn.stop and answer:  # By itself, whether trained in this run or not.
            segments.append(Segment(turn.stop, "control", weight, role, i, answer))
            pending = turn.after
        else:
            pending = turn.stop + turn.after
    end = len(messages)
    if add_generation_prompt:
        pending += template.roles["assistant"].header
    elif not template.after_last and messages:
        turn = template.roles[messages[-1].role]
        pending = pending.removesuffix(turn.after)
    if pending:
        turn_index = end if add_generation_prompt else end - 1
        role = "assistant" if add_generation_prompt else messages[-1].role
        segments.append(Segment(pending, "control", 0.0, role, turn_index))
    return segments
