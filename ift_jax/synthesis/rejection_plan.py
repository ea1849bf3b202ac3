"""What a round of rejection sampling samples, and what it selects."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from ift_jax.io.files import json_digest
from ift_jax.synthesis.prompt_rows import PromptRow


def message_texts(prompt: PromptRow) -> list[list[str]]:
    """Return the role and the text of each turn of a prompt."""
    return [[turn.role, turn.content] for turn in prompt.record.messages]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is sampled, and what is selected of it.

    Attributes:
        prompts: The prompts.
        samples: Completions of each prompt.
        max_tokens: The most tokens of a completion.
        temperature: The sampling temperature.
        top_p: The sampling's nucleus.
        stop: Texts that end a completion.
        seed: What all draws depend on.
        batch_size: Completions that are asked for at once.
        top: How many completions are selected overall; 0: the best of each prompt.
        threshold: The least reward that is good enough; None: any.
        keeps_unfinished: Whether a completion that `max_tokens` cut off may be selected.
    """

    prompts: Sequence[PromptRow]
    samples: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    batch_size: int = 32
    top: int = 0
    threshold: float | None = None
    keeps_unfinished: bool = False

    @property
    def prompts_at_once(self) -> int:
        """Prompts whose completions are asked for, or judged, together."""
        return max(1, self.batch_size // self.samples)

    def settings(self) -> dict[str, Any]:
        """Return all that the completions depend on besides the model, in JSON's types."""
        return {
            "prompts": json_digest([message_texts(prompt) for prompt in self.prompts]),
            "samples": self.samples,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": list(self.stop),
            "seed": self.seed,
            "batch_size": self.batch_size,
        }
