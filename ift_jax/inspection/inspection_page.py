"""A page that shows a mixture as it is trained: tokens, packed rows, drops, lengths, rates."""

from collections.abc import Iterator, Sequence

import numpy as np

from ift_jax.config.schema import Config
from ift_jax.data.batches import BatchPlan
from ift_jax.data.mixture import Mixture
from ift_jax.errors import counted
from ift_jax.inspection.token_roles import TEMPLATE, Token, TokenizedExample, tokenized_examples
from ift_jax.report.page import Markup, element, escaped, folded, joined, page, plots, table
from ift_jax.report.plots import Series, bar_plot, histogram
from ift_jax.text.tokenizers.base import Tokenizer

_MOST_TASKS = 40  # Tasks in plots and among the examples; the table has all.
_MOST_ROWS = 16  # Packed rows that are drawn.
_BINS = 40
_LARGEST_OPEN_TABLE = 30
_CSS = """
:root { --faint: #595959; --system: #8a2d63; --assistant: #005c42; --tool: #7a4b00; }
@media (prefers-color-scheme: dark) {
  :root { --faint: #a8a8a8; --system: #f0a8d0; --assistant: #6fe6bd; --tool: #f0b840; }
}
.example { line-height: 1.9; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 14px/1.9 ui-monospace, monospace; border-left: 3px solid var(--line); padding-left: 12px; }
.token { border-radius: 3px; padding: 1px 0; }
.token:hover { outline: 1px solid currentColor; }
.trained { background: #009e7344; border-bottom: 2px solid #009e73; }
.template { color: var(--faint); }
.system { color: var(--system); } .user, .text { color: inherit; }
.assistant { color: var(--assistant); } .tool { color: var(--tool); }
.rows { display: grid; gap: 3px; }
.row { display: flex; height: 16px; background: var(--soft); }
.row span { display: block; height: 100%; border-right: 1px solid Canvas; }
"""
# The colors of packed examples, by turns.
_ROW_COLORS = ("#0072b2", "#56b4e9", "#e69f00", "#009e73", "#cc79a7")


def inspection_page(
    config: Config,
    which: str,
    mixture: Mixture,
    tokenizer: Tokenizer,
    asked: Sequence[str],
    n_examples: int,
) -> str:
    """Return the page as text.

    Args:
        config: A run of the mixture.
        which: "train", whose planned run is shown too, "eval" or "heldout".
        mixture: The mixture.
        tokenizer: The tokenizer of its stores.
        asked: Tasks to show; all if there are none.
        n_examples: Examples a task.
    """
    tasks = list(asked or mixture.tasks)
    plan = BatchPlan.from_config(config, mixture) if which == "train" else None
    shown = tasks[:_MOST_TASKS]
    examples = tokenized_examples(config, which, mixture, shown, n_examples, tokenizer)
    sections: list[tuple[str, object]] = [
        ("Examples as they are trained", _examples(examples, len(tasks) - len(shown))),
        ("Packed rows", _packed_rows(plan, mixture) if plan else None),
        ("Tasks", _counts(mixture, tasks)),
        ("Lengths", _lengths(mixture, tasks, config)),
        ("Dropped", _dropped(mixture, tasks)),
        ("Rates", _rates(plan, mixture) if plan else None),
    ]
    n = sum(len(mixture.stores[mixture.tasks.index(task)]) for task in tasks)
    intro = element("p", f"{counted(len(tasks), 'task')}, {counted(n, 'example')}.", class_="note")
    return page(f"{config.data.mixture}: {which}", intro, sections, _CSS)


def _examples(examples: Iterator[TokenizedExample], n_left_out: int) -> Markup:
    """Return all tokens of the examples; hovering over one says what it is."""
    parts = [_legend()]
    if n_left_out:
        left_out = f"{n_left_out:,} more tasks are left out; --task NAME shows them."
        parts.append(element("p", left_out, class_="note"))
    for example in examples:
        n_trained = sum(token.weight > 0 for token in example.decoder)
        head = (
            f"{example.task}, example {example.position}"
            f"{example.side and f', {example.side}'}: "
            f"{len(example.encoder) + len(example.decoder):,} tokens, {n_trained:,} trained"
        )
        texts = [_tokens(tokens) for tokens in (example.encoder, example.decoder) if tokens]
        parts.append(folded(head, joined(texts), is_open=True))
    return joined(parts)


def _legend() -> Markup:
    """Return what the colors mean, each in its color."""
    roles = [element("span", role, class_=role) for role in ("system", "user", "assistant", "tool")]
    return element(
        "p",
        element("span", "Tokens with a green ground", class_="trained"),
        " are trained. Roles have colors: ",
        joined(part for role in roles for part in (role, ", ")),
        element("span", "what the template writes", class_=TEMPLATE),
        ". Hover over a token for its id, role and loss weight.",
    )


def _tokens(tokens: Sequence[Token]) -> Markup:
    return element("div", *map(_token, tokens), class_="example")


def _token(token: Token) -> Markup:
    """Return a token with what hovering over it says."""
    classes = f"token {token.role}{' trained' if token.weight else ''}"
    title = f"id {token.id} | {token.text!r} | {token.role} | {_why(token)}"
    # A partial weight is seen, too: the fainter the ground, the less it counts.
    style = {} if token.weight in (0.0, 1.0) else {"style": f"background:{_ground(token.weight)}"}
    return element("span", token.text or "\u200b", class_=classes, title=title, **style)


def _ground(weight: float) -> str:
    return f"rgba(0,158,115,{min(max(0.27 * weight, 0.04), 0.4):.2f})"


def _why(token: Token) -> str:
    """Say why a token is trained or not."""
    if token.weight:
        what = "ends or surrounds an answer" if token.role == TEMPLATE else "part of an answer"
        return f"trained with weight {token.weight:g}: {what}"
    if token.role == TEMPLATE:
        return "not trained: the template writes it around the messages"
    return f"not trained: {token.role} is context here"


def _packed_rows(plan: BatchPlan, mixture: Mixture) -> Markup:
    """Return the rows of the first batch, drawn to scale."""
    n_rows = min(plan.batch_size, _MOST_ROWS)
    examples = plan.examples(0, slice(0, n_rows))
    capacity = plan.capacities[-1]
    at = 0
    rows = []
    for count in examples.counts.tolist():
        blocks = []
        for k in range(at, at + count):
            task = int(examples.task_ids[k])
            variant = mixture.stores[task].variants[int(examples.variants[k])]
            i = int(examples.example_ids[k])
            length = int(variant.lengths[i])
            color = _ROW_COLORS[(k - at) % len(_ROW_COLORS)]
            blocks.append(
                element(
                    "span",
                    title=f"{mixture.tasks[task]}, example {variant.indices[i]}: {length} tokens, "
                    f"{variant.trained_tokens[i]} trained",
                    style=f"width:{100 * length / capacity:.3f}%;background:{color}",
                )
            )
        at += count
        rows.append(element("div", *blocks, class_="row"))
    note = (
        f"The first batch begins with {'this row' if n_rows == 1 else f'these {n_rows} rows'} of "
        f"{capacity:,} tokens. A block is an example, and what is left of a row is padding. The "
        f"whole run's fill is {plan.fill:.1%}."
    )
    return joined([element("p", note, class_="note"), element("div", *rows, class_="rows")])


def _counts(mixture: Mixture, tasks: Sequence[str]) -> Markup:
    """Return the counts of each task."""

    def rows() -> Iterator[list[object]]:
        for task in tasks:
            store = mixture.stores[mixture.tasks.index(task)]
            manifest = store.manifest
            tokens = manifest["tokens"] + manifest["encoder_tokens"]
            yield [
                task,
                manifest["input_examples"],
                len(store),
                tokens,
                100 * manifest["trained_tokens"] / max(tokens, 1),
                manifest["truncated_examples"],
                sum(manifest["dropped"].values()),
            ]

    heads = ["task", "in source", "examples", "tokens", "% trained", "truncated", "dropped"]
    return folded(
        f"Counts of {counted(len(tasks), 'task')}",
        table(heads, rows()),
        is_open=len(tasks) <= _LARGEST_OPEN_TABLE,
    )


def _lengths(mixture: Mixture, tasks: Sequence[str], config: Config) -> Markup:
    """Return histograms of the lengths of all examples."""
    stores = [mixture.stores[mixture.tasks.index(task)] for task in tasks]
    decoder = np.concatenate([store.lengths for store in stores])
    trained = np.concatenate([store.trained_tokens for store in stores])
    encoder = np.concatenate([store.encoder_lengths for store in stores])
    series = _bins({"all tokens": decoder, "trained tokens": trained})
    drawn = [histogram("Tokens of an example", series, x_label="tokens", y_label="examples")]
    if encoder.any():
        of_encoder = _bins({"encoder tokens": encoder})
        drawn.append(histogram("Encoder tokens", of_encoder, x_label="tokens", y_label="examples"))
    percentiles = np.percentile(decoder, (50, 95, 99, 100))
    note = (
        "Tokens of an example: half have at most {:.0f}, 95% at most {:.0f}, 99% at most {:.0f}, "
        "the longest has {:.0f}; a row holds {:,}."
    ).format(*percentiles, config.row_lengths.decoder)
    return joined([element("p", note, class_="note"), plots(drawn)])


def _bins(lengths: dict[str, np.ndarray]) -> list[Series]:
    """Return histograms with common bins, each of the same number of whole tokens."""
    longest = max(int(of_name.max()) for of_name in lengths.values())
    width = -(-(longest + 1) // _BINS)
    edges = np.arange(0, longest + 1 + width, width)
    return [
        Series(name, edges.tolist(), np.histogram(of_name, bins=edges)[0].tolist())
        for name, of_name in lengths.items()
    ]


def _dropped(mixture: Mixture, tasks: Sequence[str]) -> Markup:
    """Return how many records were dropped, by reason."""
    reasons: dict[str, int] = {}
    for task in tasks:
        manifest = mixture.stores[mixture.tasks.index(task)].manifest
        for reason, n in manifest["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    if not reasons:
        return element("p", "No record was dropped.", class_="note")
    names = sorted(reasons, key=lambda reason: -reasons[reason])
    bars = Series("records", list(range(len(names))), [reasons[name] for name in names])
    counts = ", ".join(f"{name} {reasons[name]:,}" for name in names)
    drawn = bar_plot("Dropped records", names, [bars], x_label="records")
    return joined([element("p", escaped(counts), class_="note"), plots([drawn])])


def _rates(plan: BatchPlan, mixture: Mixture) -> Markup:
    """Return the requested and the realized share of each task."""
    planned = plan.summary()["tasks"]
    rows = [
        (
            task,
            float(rate),
            100 * planned[task]["requested_share"],
            100 * planned[task]["realized_share"],
            planned[task]["epochs"],
        )
        for task, rate in zip(mixture.tasks, mixture.rates, strict=True)
    ]
    most = sorted(rows, key=lambda row: -row[2])[:_MOST_TASKS]
    places = list(range(len(most)))
    series = [
        Series("requested", places, [row[2] for row in most]),
        Series("in the planned run", places, [row[3] for row in most]),
    ]
    drawn = []
    if len(rows) > 1:
        names = [row[0] for row in most]
        drawn.append(bar_plot("Share of examples", names, series, x_label="percent"))
    heads = ["task", "rate", "% requested", "% in the planned run", "epochs"]
    return joined(
        [
            plots(drawn),
            folded(
                f"Shares of {counted(len(rows), 'task')}",
                table(heads, rows),
                is_open=len(rows) <= _LARGEST_OPEN_TABLE,
            ),
        ]
    )
