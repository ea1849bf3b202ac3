"""An mkdocs hook for links from a page to a file of the checkout outside `docs/`.

On a code host such a link (`../CONTRIBUTING.md`) works as it is. The site has no such file: with
`repo_url` in mkdocs.yml the link leads to the repository, without it only its text stays.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace the links of a page that leave `docs/`.

    Raises:
        FileNotFoundError: a link leads to no file of the checkout.
    """
    root = Path(config["docs_dir"]).parent
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def replace(match: re.Match[str]) -> str:
        text, link, anchor = match.groups()
        path = posixpath.normpath(posixpath.join(folder, link))
        if path.startswith("docs/"):
            return match[0]
        if not (root / path).exists():
            raise FileNotFoundError(f"{page.file.src_uri}: {link} is no file of the checkout")
        if not config["repo_url"]:
            return text
        return f"[{text}]({config['repo_url'].rstrip('/')}/blob/main/{path}{anchor or ''})"

    return _LINK.sub(replace, markdown)
