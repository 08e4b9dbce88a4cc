"""MkDocs hooks: pages made from files outside docs/, one page per room from its docstrings, and links between all of them."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "datalists/README.md": "datalists.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^ *```.*?^ *```)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that have no file in docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    for name in sorted(path.parent.name for path in ROOT.glob("propl_monai/*/__init__.py")):
        files.append(File.generated(config, f"api/{name}.md", content=f"# {name}\n\n::: propl_monai.{name}\n"))
    content = "# propl_monai\n\n::: propl_monai\n    options: {show_submodules: false}\n"
    content += "".join(f"\n## {name}\n\n::: propl_monai.{name}\n" for name in ("errors", "tasks"))
    files.append(File.generated(config, "api/index.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Lead links between files of the repository to their pages; a link to a file that is no page becomes plain text."""
    here = page.file.src_uri
    source = next((each for each, target in PAGES.items() if target == here), f"docs/{here}")

    def lead(found: re.Match[str]) -> str:
        bang, text, place, anchor = found.groups()
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), place))
        if not (ROOT / path).exists() and not path.startswith("docs/api/"):
            return found.group()  # MkDocs names it
        target = PAGES.get(path, path.removeprefix("docs/"))
        if files.get_file_from_path(target) is None:
            return text
        return f"{bang}[{text}]({posixpath.relpath(target, posixpath.dirname(here) or '.')}{anchor or ''})"

    parts = FENCE.split(markdown)
    return "".join(part if part.lstrip().startswith("```") else LINK.sub(lead, part) for part in parts)
