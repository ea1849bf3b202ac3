"""LIMA (Zhou et al. 2023, arXiv:2305.11206): a thousand careful conversations.

`register(root)` registers tasks from the release GAIR/lima. Accept its license (CC BY-NC-SA) on the
hub to download it, and put train.jsonl into <root>/lima. Its rows are {"conversations": [user,
assistant, ...], "source"}.

- `lima`: all 1,030 rows of the released training file, 30 of which have several turns;
- `lima_single_turn`: the other 1,000 rows, on which the paper's main model was trained.

One row in twenty is "validation" (51 of 1,030; the paper's 50 development prompts are not in the
release), and the split "all" has every row. The release's test file holds prompts without answers,
for people to judge; they are not a task, but `ift generate --prompts` reads them.
"""

from collections.abc import Mapping, Sequence

from ift_jax.data.randomness import Draws
from ift_jax.sources.register import register_task
from ift_jax.sources.rows import Row, RowsSource, conversation

RELEASED = 1_030  # Rows of the training file, 1,000 of them with a single turn.


def register(root: str) -> None:
    """Register `lima` and `lima_single_turn`."""
    every_row = RowsSource("GAIR/lima", _record, root, keep_out=20)
    register_task("lima", every_row)
    single_turn = RowsSource("GAIR/lima", _record, root, keep_out=20, expand=_single_turn)
    register_task("lima_single_turn", single_turn)


def _single_turn(row: Row) -> Sequence[Row]:
    return [row] if len(row["conversations"]) == 2 else []


def _record(row: Row, draws: Draws) -> Mapping[str, str]:
    texts = row["conversations"]
    if isinstance(texts, str) or not texts or len(texts) % 2:
        raise ValueError("conversations: expected a user's and an assistant's text in turn")
    roles = ("user", "assistant") * (len(texts) // 2)
    return conversation(*zip(roles, texts, strict=True))
