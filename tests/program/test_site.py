"""The pages as a site: it is built, nothing in it leads nowhere, and it says what the program is."""

import html.parser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

import logpi

ROOT = Path(__file__).parents[2]


class Links(html.parser.HTMLParser):
    """The addresses on a page, and the places that an address can name."""

    def __init__(self):
        super().__init__()
        self.addresses = []
        self.places = set()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places |= {given[name] for name in ("id", "name") if name in given}
        self.addresses += [given[name] for name in ("href", "src") if given.get(name)]


def build(root, site):
    """The site of a checkout, whose warnings are errors."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=root,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


def dead_links(site):
    """Addresses of this site that lead to no file, or to no place on a page."""
    pages = {}
    for path in site.rglob("*.html"):
        pages[path] = Links()
        pages[path].feed(path.read_text())
    dead = []
    for path, page in pages.items():
        for address in page.addresses:
            if re.match(r"[a-z]+:", address) or path.name == "404.html":
                continue
            name, _, place = unquote(address).partition("#")
            target = (path.parent / name).resolve() if name else path
            is_page = target in pages
            if not target.exists() or (place and is_page and place not in pages[target].places):
                dead.append(f"{path.name}: {address}")
    return dead


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_is_on_the_site_and_no_link_is_dead(site):
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert {path.with_suffix(".html") for path in written} <= {
        path.relative_to(site) for path in site.rglob("*.html")
    }
    named = (ROOT / "mkdocs.yml").read_text()
    assert all(f" {path}\n" in named for path in written)
    assert dead_links(site) == []


def test_nothing_is_fetched_from_elsewhere(site):
    """Styles, scripts and pictures are files of the site."""
    for path in site.rglob("*.html"):
        fetched = re.findall(
            r'<(?:script|img|link)[^>]*(?:src|href)="(https?:[^"]*)"', path.read_text()
        )
        assert fetched == []


def test_every_public_name_is_described(site):
    page = (site / "api.html").read_text()
    for name in logpi.__all__:
        if name != "__version__":
            module = logpi._MODULES[name]
            assert f'id="logpi.{name}"' in page or f'id="logpi.{module}.{name}"' in page, name


@pytest.mark.slow
def test_a_dead_link_is_seen(tmp_path, site):
    """Controls: a page that links to none, and a site that has lost one."""
    for name in ("docs", "src", "examples", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs" / "check.md").open("a") as page:
        page.write("\n[nowhere](nowhere.md)\n")
    assert build(tmp_path, tmp_path / "site").returncode != 0
    broken = shutil.copytree(site, tmp_path / "broken")
    (broken / "scaling.html").unlink()
    assert dead_links(broken)


@pytest.mark.slow
def test_the_python_of_the_first_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL
    )
    names: dict = {}
    exec(compile(code.replace("50_000", "3_000"), "index.md", "exec"), names)
    assert str(names["run"].evaluation) in capsys.readouterr().out
    assert int(names["action"]) in (0, 1)
