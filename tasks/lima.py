"""LIMA (Zhou et al. 2023, arXiv:2305.11206): a thousand careful conversations.

`register(root)` registers, from the release GAIR/lima (who fetches it accepts its licence, CC
BY-NC-SA, there, and puts train.jsonl into <root>/lima; rows are
{"conversations": [user, assistant, ...], "source"}),

- `lima`: all 1,030 rows of the released training file, 30 of which have several turns;
- `lima_single_turn`: the others, the 1,000 that the paper's main model was trained on.

One row in twenty is "validation" (51 of 1,030; the paper's 50 development prompts are not in the
release) and the split "all" has every row. The release's test file holds prompts without
answers, for people to judge: `ift generate --prompts` takes those, they are no task.
"""

from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource, conversation

RELEASED = 1_030  # Rows of the training file; 1,000 without the conversations of several turns.


def register(root: str) -> None:
    """Registers `lima` and `lima_single_turn`."""
    for name, expand in (("lima", None), ("lima_single_turn", _single_turn)):
        register_task(name, RowsSource("GAIR/lima", _record, root, keep_out=20, expand=expand))


def _single_turn(row: Row) -> Sequence[Row]:
    return [row] if len(row["conversations"]) == 2 else []


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    texts = row["conversations"]
    if isinstance(texts, str) or not texts or len(texts) % 2:
        raise ValueError("conversations: expected a user's and an assistant's text in turn")
    roles = ("user", "assistant") * (len(texts) // 2)
    return conversation(*zip(roles, texts, strict=True))
