"""The fenced code blocks of README.md, data/README.md, docs/ and the references: all of them are
typed by tests/pipeline/test_documents.py, unless a comment right before one says why not:

    <!-- output -->             what a command prints, or a picture of something
    <!-- not run: REASON -->    what no test can type, as it downloads or takes hours
"""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PLACES = ("README.md", "data/README.md", "docs/*.md", "reports/reference/*/README.md")
PAGES = sorted(page for place in PLACES for page in ROOT.glob(place))
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?:output|not run: \S[^\n]*) -->\s*\Z")
TYPED = ("sh", "python", "yaml", "mermaid")


class Block(NamedTuple):
    """A fenced block. place: `page:line`; marked: whether a comment before it takes it out."""

    place: str
    language: str
    text: str
    marked: bool


def blocks(page: Path) -> list[Block]:
    """The blocks of one page, from its top to its end."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        indent, language, content = match.groups()
        content = re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
        marked = bool(MARK.search(text[: match.start()]))
        found.append(Block(f"{page.relative_to(ROOT)}:{line}", language, content, marked))
    return found
