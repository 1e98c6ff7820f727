"""What the site needs beside its pages: the files of the repository to which they link."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
# A link from a page out of the folder docs, with its line.
OUTSIDE = re.compile(r"\]\((?:\.\./)+((?:examples|benchmarks|src|tests)/[^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every file to which a page links."""
    pages = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    linked = {found[1] for page in pages for found in OUTSIDE.finditer(page.read_text())}
    for name in sorted(linked):
        copy = File.generated(config, f"{name}.txt", content=(ROOT / name).read_text())
        files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Name these files where they are on the site; as text, which browsers show."""
    up = "../" * page.file.src_uri.count("/")
    return OUTSIDE.sub(lambda found: f"]({up}{found[1]}.txt)", markdown)
