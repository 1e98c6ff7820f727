"""A page as a browser shows it."""

import html
import html.parser
import re
import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WIDTHS = (390, 1400)
# A frame is as narrow as it is asked to be; a window is not.
FRAME = """<!doctype html><title></title>
<iframe srcdoc="PAGE" style="border: 0; height: 900px; width: WIDTHpx"
 onload="document.title = this.contentDocument.documentElement.scrollWidth"></iframe>
"""
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-logging=stderr",
    "--window-size=1600,1000",
    "--virtual-time-budget=5000",
    "--dump-dom",
)
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Structure(html.parser.HTMLParser):
    """Every tag is closed by its own end, and no two elements have one id."""

    def __init__(self):
        super().__init__()
        self.open = []
        self.ids = []
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href", "xlink:href") if name in given]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def assert_sound(page):
    """Well formed, and nothing is fetched from elsewhere."""
    found = Structure()
    found.feed(page.read_text())
    assert found.open == []
    assert len(set(found.ids)) == len(found.ids)
    inside = [address for address in found.addresses if address.startswith(("#", "data:"))]
    assert inside == found.addresses


def width_in_browser(page, width, folder):
    """How wide the page is in a frame of this width; nothing may be said on the console."""
    assert CHROMIUM is not None
    frame = folder / f"frame_{width}.html"
    inside = html.escape(page.read_text())
    frame.write_text(FRAME.replace("WIDTH", str(width)).replace("PAGE", inside))
    done = subprocess.run(
        [CHROMIUM, *OPTIONS, f"--user-data-dir={folder / 'profile'}", f"file://{frame}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r"<title>(\d+)</title>", done.stdout)
    assert found, done.stderr
    return int(found[1])
