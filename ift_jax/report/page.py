"""A page of HTML in one file: no scripts, no requests, readable on a phone and in the dark."""

import html
from collections.abc import Iterable, Sequence
from pathlib import Path

# Browsers enforce that the page asks for nothing and runs nothing, whatever a run's texts hold.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


class Markup(str):
    """A text that is HTML already; every other text is escaped."""

    __slots__ = ()


def escaped(value: object) -> Markup:
    """Return a value as HTML."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def element(tag: str, *children: object, **attributes: str) -> Markup:
    """Return an element; `class_` stands for the attribute `class`."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(value)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{written}>{''.join(map(escaped, children))}</{tag}>")


def joined(parts: Iterable[object]) -> Markup:
    """Return several values as HTML, one after another."""
    return Markup("".join(map(escaped, parts)))


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """Return a table; numbers are aligned to the right. A wide one scrolls by itself.

    Args:
        heads: The head of each column.
        rows: The cells; a float is shown with four significant digits, None as an empty cell.
    """
    rows = [list(row) for row in rows]
    numeric = [any(isinstance(row[k], int | float) for row in rows) for k in range(len(heads))]

    def cell(tag: str, value: object, is_number: bool) -> Markup:
        return element(tag, value, class_="number") if is_number else element(tag, value)

    head = joined(cell("th", *pair) for pair in zip(heads, numeric, strict=True))
    body = joined(
        element("tr", *(cell("td", shown(value), n) for value, n in zip(row, numeric, strict=True)))
        for row in rows
    )
    return element(
        "div",
        element("table", element("thead", element("tr", head)), element("tbody", body)),
        class_="wide",
    )


def shown(value: object) -> object:
    """Return what a cell shows of a value."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:#.4g}"


def folded(summary: str, content: object, *, is_open: bool = False) -> Markup:
    """Return content that a click on its summary shows."""
    tag = "<details open>" if is_open else "<details>"
    return Markup(f"{tag}{element('summary', summary)}{escaped(content)}</details>")


def plots(svgs: Iterable[str]) -> Markup:
    """Return plots side by side, as many as the width allows."""
    return element(
        "div", *(element("figure", Markup(svg), style="margin:0") for svg in svgs), class_="plots"
    )


def page(title: str, intro: object, sections: Iterable[tuple[str, object]], css: str = "") -> str:
    """Return a whole page.

    Args:
        title: The title.
        intro: What stands below it.
        sections: The head and the content of each section; one without content is left out.
        css: Further rules.
    """
    kept = [(head, content) for head, content in sections if content]
    links = joined(
        element("a", head, href=f"#section{number}") for number, (head, _) in enumerate(kept)
    )
    body = joined(
        joined((element("h2", head, id=f"section{number}"), content))
        for number, (head, content) in enumerate(kept)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<link rel="icon" href="data:,">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_STYLE}{css}</style>\n</head>\n<body>\n"
        f"{element('h1', title)}{escaped(intro)}\n{element('nav', links)}\n{body}\n"
        "</body>\n</html>\n"
    )
