"""What the pages of docs/ say, for tests of those who refer to them."""

import re
from pathlib import Path


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs makes them."""
    text = re.sub(r"(?ms)^```.*?^```", "", page.read_text())
    titles = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
