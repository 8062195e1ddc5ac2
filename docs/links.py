"""For MkDocs: pages may link to any file of the repository, as one reads them there. What is outside docs/ becomes a
link to the repository; what does not exist stays as it is, so that the strict build refuses it."""

import re
from pathlib import Path

LINK = re.compile(r"(?<=\]\()(\.\.?/[^)#\s]+)(#[^)\s]*)?(?=\))")


def on_page_markdown(markdown, page, config, files):
    here = Path(page.file.abs_src_path).parent

    def outside(found):
        target = (here / found[1]).resolve()
        docs = Path(config.docs_dir).resolve()
        if target.is_relative_to(docs) or not target.exists() or not target.is_relative_to(docs.parent):
            return found[0]
        return f"{config.repo_url.rstrip('/')}/tree/main/{target.relative_to(docs.parent)}"

    return LINK.sub(outside, markdown)
