"""What can be wrong with a chat template and a tokenizer together, found by probing."""

import dataclasses

import numpy as np

from ift_jax.errors import UserError
from ift_jax.text.chat_templates.marking import probes
from ift_jax.text.examples import Dropped, ExampleFormatter
from ift_jax.text.records import Message, Record


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: its name, whether it is fulfilled, and what was found."""

    check: str
    ok: bool
    detail: str


def lint(formatter: ExampleFormatter) -> list[Finding]:
    """Checks a decoder's format: one finding for each check.

    The checks: one BOS at most; the stop token of every trained turn is trained; headers are
    not; answers follow the text that prompts them, together or one example a turn; the prompt's
    ids begin the training ids; the ids are those of the whole text (cut at answers or not); no
    clock.
    """
    tokenizer = formatter.tokenizer
    wrong: dict[str, str] = {}
    notes = {"no_clock": "the template is given none"}
    seen = False
    # Some models' BOS opens every turn, as SmolLM2's <|im_start|>.
    bos_is_marker = tokenizer.names.get("bos_token", "\0") in formatter.template_source
    special = set(tokenizer.special_tokens.values()) - set(formatter.stop_ids)
    for record in (*probes(formatter.template_source), _SPACED):
        try:
            examples = formatter.encode(record)
        except UserError:
            continue  # The template has no such conversation.
        if isinstance(examples, Dropped):
            if any(m.reasoning_content or "</think>" in m.content for m in record.messages):
                notes.setdefault("prefix_stable", "records with thoughts are dropped")
            elif examples.reason == "template_unstable":
                wrong["prefix_stable"] = "an answer does not follow its prompt"
            continue
        seen = True
        turns = [i for i, m in enumerate(record.messages) if m.role == "assistant"]
        if len(examples) > 1:
            notes["prefix_stable"] = "one example for each trained turn"
        for k, turn in enumerate(turns):
            example = examples[min(k, len(examples) - 1)]
            tokens, trained = example.tokens.tolist(), example.weights > 0
            n_bos = 0 if bos_is_marker else tokens.count(tokenizer.bos_id)
            if len(turns) < 2 and n_bos > 1 or tokens[:2] == [tokenizer.bos_id] * 2:
                wrong.setdefault("one_bos", f"{n_bos} BOS tokens")
            ends = np.flatnonzero(trained & ~np.append(trained[1:], False))
            if any(tokens[end] not in formatter.stop_ids for end in ends):
                wrong["stop_trained"] = "an answer ends in another token"
            starts = np.flatnonzero(trained & ~np.append(False, trained[:-1]))
            if any(tokens[start] in special for start in starts) and not record.tools:
                wrong["header_untrained"] = "an answer begins with a control"
            before = dataclasses.replace(record, messages=record.messages[:turn])
            prompt = formatter.prompt(before).tolist()
            if tokens[: len(prompt)] != prompt:
                wrong.setdefault("prompt_is_prefix", f"not so for {record.messages}")
            text = tokenizer.decode(tokens, keep_special=True)
            if tokens != tokenizer.encode_with_controls(text):
                notes["whole_text_ids"] = "a token of the whole text would cross an answer's edge"
    if not seen:
        wrong["prefix_stable"] = "no probing conversation could be rendered"
    return [
        Finding(check, check not in wrong, wrong.get(check) or notes.get(check, "yes"))
        for check in (
            "one_bos",
            "stop_trained",
            "header_untrained",
            "prefix_stable",
            "prompt_is_prefix",
            "whole_text_ids",
            "no_clock",
        )
    ]


_SPACED = Record((Message("user", "Code?"), Message("assistant", "\n  x = 1\n")), where="probe")
