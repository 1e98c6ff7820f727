"""A page of HTML that needs nothing beside it: no network, no other file."""

import base64
import html
import io
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from logpi.artifacts.files import written_at
from logpi.core.checks import require

# Readable on white and on black alike.
INK = "#808080"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; --ok: #2a8a3e; --bad: #c0392b; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1200px; padding: 16px; }
h1 { font-size: 1.5rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 32px 0 8px; }
p { margin: 8px 0; max-width: 75ch; }
.grid { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(300px, 1fr)); }
figure { border: 1px solid var(--line); border-radius: 8px; margin: 0; max-width: 640px;
  min-width: 0; padding: 8px; }
figure svg, figure img { display: block; height: auto; margin: 0 auto; max-width: 100%; }
figure svg { width: 100%; }
figcaption { font-size: 0.9rem; padding: 0 4px 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; }
th, td { border-bottom: 1px solid var(--line); padding: 4px 12px 4px 0; text-align: left; }
td { font-variant-numeric: tabular-nums; max-width: 60ch; min-width: 4ch; vertical-align: top; }
pre { background: var(--soft); border-radius: 8px; overflow-x: auto; padding: 12px; }
math { font-size: 1.1rem; }
.line { border-top: 1px solid var(--line); padding: 12px 0; }
.line .scroll { padding: 4px 0; }
.ok { color: var(--ok); }
.bad { color: var(--bad); }
footer { border-top: 1px solid var(--line); font-size: 0.85rem; margin-top: 32px; padding: 8px 0; }
"""


def write_page(path: Path, title: str, parts: Iterable[str]) -> None:
    """A page with a title and what follows it, each part HTML.

    **Raises:** `LogpiError` where it cannot be written, and for a file that is no page.
    """
    require(path.suffix in (".html", ".htm"), "the file of a page", "a name in .html", str(path))
    body = "\n".join(parts)
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<h1>{escape(title)}</h1>\n{body}\n"
        f"<footer>logpi {version('logpi')}</footer>\n</body>\n</html>\n"
    )
    with written_at(path):
        path.write_text(text, encoding="utf-8")


def escape(text: object) -> str:
    """Text as HTML shows it."""
    return html.escape(str(text))


def heading(text: str) -> str:
    """The title of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of text."""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text as it stands in a terminal."""
    return f"<pre>{escape(text)}</pre>"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of text under names, which may be wider than the screen."""
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    body = "".join(lines)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def grid(figures: Sequence[str]) -> str:
    """Figures side by side, as many as the screen has room for."""
    return f'<div class="grid">{"".join(figures)}</div>'


def chart(caption: str, draw: Callable[[Any], None]) -> str:
    """A figure with what `draw` puts on a pair of axes, as vector graphics."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inked = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    ink = dict.fromkeys(inked, INK)
    # text as text: it is small, can be searched, and has the fonts of the page
    with rc_context({**ink, "svg.fonttype": "none", "font.size": 10, "svg.hashsalt": caption}):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained")
        axes = figure.subplots()
        axes.grid(alpha=0.3)
        axes.set_facecolor("none")
        draw(axes)
        handles, _ = axes.get_legend_handles_labels()
        if len(handles) > 1:
            axes.legend(fontsize=8, framealpha=0)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    label = escape(caption)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
    return f"<figure><figcaption>{label}</figcaption>{_own_ids(svg, caption)}</figure>"


def _own_ids(svg: str, caption: str) -> str:
    """The picture with names of its own for its parts: several on a page may not share them."""
    prefix = re.sub(r"\W", "", caption)
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)


def image(caption: str, data: bytes, kind: str) -> str:
    """A figure with a picture of pixels, such as `gif`."""
    label = escape(caption)
    inside = base64.b64encode(data).decode()
    shown = f'<img alt="{label}" src="data:image/{kind};base64,{inside}">'
    return f"<figure><figcaption>{label}</figcaption>{shown}</figure>"
