"""What the site (mkdocs.yml) takes from outside of docs/, so that a page reads the same in the repository and there.

README.md                            -> index.md
CHANGELOG.md, CONTRIBUTING.md, ...   -> pages of the same names
links to other files                 -> copies of them, below files/
links to other folders               -> the text of the link
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
AT_ROOT = {
    ROOT / "README.md": "index.md",
    **{ROOT / f"{name}.md": f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")},
}
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<text>!?\[(?:[^\[\]]|\[[^\]]*\])*\])\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_ELSEWHERE = re.compile(r"[a-z]+:")


def links(markdown: str) -> Iterator[re.Match[str]]:
    """The links of a page that are within the repository, as matches with the groups `text`, `target` and `anchor`."""
    for part in _FENCE.split(markdown)[::2]:
        yield from (each for each in _LINK.finditer(part) if not _ELSEWHERE.match(each["target"]))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie at the root of the repository."""
    for path, uri in AT_ROOT.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to the repository's files into links within the site."""
    here = page.file.src_uri
    source = next((path for path, uri in AT_ROOT.items() if uri == here), DOCS / here)

    def replaced(match: re.Match[str]) -> str:
        if not match["target"] or _ELSEWHERE.match(match["target"]):
            return match[0]
        target = Path(os.path.normpath(source.parent / match["target"]))
        uri = _uri(target)
        if uri is None:
            if target.is_dir():
                return match["text"][1:-1]
            if not target.is_file():
                return match[0]  # mkdocs tells it
            uri = f"files/{target.relative_to(ROOT).as_posix()}"
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(target)))
        relative = os.path.relpath(uri, Path(here).parent).replace(os.sep, "/")
        return f"{match['text']}({relative}{match['anchor'] or ''})"

    parts = _FENCE.split(markdown)
    parts[::2] = [_LINK.sub(replaced, part) for part in parts[::2]]
    return "".join(parts)


def _uri(target: Path) -> str | None:
    """Where a file is on the site by itself: as a page or as a file of docs/."""
    if target in AT_ROOT:
        return AT_ROOT[target]
    if target.is_file() and target.is_relative_to(DOCS) and target.suffix != ".py":
        return target.relative_to(DOCS).as_posix()
    return None
