"""What the pages of docs/ say, for the tests that do as they say."""

import re
import textwrap
from pathlib import Path


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def blocks(page: Path, language: str) -> list[str]:
    """The page's blocks in that language, also those in lists."""
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^\1```", page.read_text())
    return [textwrap.dedent(text) for _, text in found]


def substituted(text: str, changes: dict[str, str]) -> str:
    """What differs here put in; each of the changes must be for something that is there."""
    for old, new in changes.items():
        assert old in text, f"the page does not have {old!r}"
        text = text.replace(old, new)
    return text
