"""Loss weights of the parts of answers that a policy leaves untrained: thoughts and calls.

As with ranges, the ids stay those of the whole answer: a policy changes weights alone.
"""

from collections import Counter

import numpy as np
import numpy.typing as npt

from ift_jax.errors import UserError
from ift_jax.text.answer_parts import AnswerParts, PartsNotFound, answer_parts
from ift_jax.text.encoded import EMPTY_BLOCKS, MASKED_CALLS, MASKED_THINKING
from ift_jax.text.policies import Policy
from ift_jax.text.records import Message, Record
from ift_jax.text.thought_blocks import has_empty_block, is_opened, leading_block, thought_of
from ift_jax.text.token_characters import TokenCharacters
from ift_jax.text.tokenizers.base import Tokenizer

_TAIL = 24  # Tokens of a prompt in which an empty block of thought may stand.


class PartWeights:
    """Applies the policies for parts of answers.

    Attributes:
        tokenizer: The tokenizer of the ids.
        template: The name of the template, for errors.
    """

    def __init__(self, tokenizer: Tokenizer, template: str):
        self.tokenizer = tokenizer
        self.template = template

    def apply(
        self,
        weights_N: npt.NDArray[np.float32],
        ids_N: npt.NDArray[np.int32],
        owners_N: npt.NDArray[np.int64],
        record: Record,
        policy: Policy,
    ) -> Counter[str]:
        """Set to 0 the weights of what is not to be trained.

        Args:
            weights_N: float32[N], the loss weight of each token; it is changed.
            ids_N: int32[N], the tokens.
            owners_N: int64[N], the message whose answer each token is part of.
            record: The record.
            policy: Its policies.

        Returns:
            The counts of what was masked.

        Raises:
            UserError: A policy cannot be kept under the template.
        """
        counts: Counter[str] = Counter()
        if not policy.concerns_parts:
            return counts
        for i, message in enumerate(record.messages):
            (own,) = np.nonzero(owners_N == i)
            if message.role != "assistant" or not own.size or not weights_N[own].any():
                continue
            place = f"{record.where}: messages[{i}]"
            characters = TokenCharacters(ids_N[own].tolist(), self.tokenizer)
            if policy.empty_thinking != "template" and not thought_of(message).strip():
                before = ids_N[max(own[0] - _TAIL, 0) : own[0]].tolist()
                self._check_empty(before, characters.text, policy, place)
                counts[EMPTY_BLOCKS] += 1
            parts = self._parts(characters.text, message, policy, place)
            if parts is None:
                continue
            for name, begin, end in _masked(parts, message, policy, len(characters.text)):
                held = own[characters.holding(begin, end)]
                counts[name] += int(np.count_nonzero(weights_N[held]))
                weights_N[held] = 0
        return counts

    def _parts(
        self, answer: str, message: Message, policy: Policy, place: str
    ) -> AnswerParts | None:
        """Return the parts of an answer; None if nothing of it is masked."""
        has_calls = "<tool_call>" in message.content or message.tool_calls or message.function_calls
        masks_thought = not policy.train_thinking or policy.empty_thinking == "mask"
        if not masks_thought and (policy.train_tool_calls or not has_calls):
            return None
        try:
            return answer_parts(answer, message)
        except PartsNotFound as error:
            field = _first_unkept(policy, has_calls=bool(has_calls))
            raise UserError(
                f"{place}: format.{field} cannot be kept under template {self.template!r}: expected"
                f" {error}, found {answer[:60]!r}"
            ) from None

    def _check_empty(self, before: list[int], answer: str, policy: Policy, place: str) -> None:
        """Check that an answer without a thought has an empty block, in the prompt or itself."""
        prompt = self.tokenizer.decode(before, keep_special=True)
        block = leading_block(answer)
        if has_empty_block(prompt) or (block is not None and not block.thought):
            return
        opened = " after an opened thought" if is_opened(prompt) else ""
        raise UserError(
            f"{place}: format.empty_thinking={policy.empty_thinking!r} cannot be kept under"
            f" template {self.template!r}: expected an empty block of thought before the answer,"
            f" found {answer[:40]!r}{opened}"
        )


def _first_unkept(policy: Policy, *, has_calls: bool) -> str:
    """Return the name of the first policy by which something is masked."""
    if not policy.train_thinking:
        return "train_thinking"
    return "empty_thinking" if policy.train_tool_calls or not has_calls else "train_tool_calls"


def _masked(
    parts: AnswerParts, message: Message, policy: Policy, length: int
) -> list[tuple[str, int, int]]:
    """Return what is masked of an answer: its name in the counts, and where it begins and ends."""
    masked = []
    is_empty = not thought_of(message).strip()
    if not policy.train_thinking or (policy.empty_thinking == "mask" and is_empty):
        masked.append((MASKED_THINKING, 0, parts.thought_end))
    if not policy.train_tool_calls:
        masked.append((MASKED_CALLS, parts.calls, length))
    return masked
