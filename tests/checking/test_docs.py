"""The pages are those that the program writes, and their examples run."""

import re
import sys
from pathlib import Path

import pytest

from logpi.cli import main

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))


@pytest.mark.parametrize(
    "page",
    [
        "derivation.md",
        pytest.param("estimators.md", marks=pytest.mark.release),
        pytest.param("language-models.md", marks=pytest.mark.release),
        pytest.param("bugs.md", marks=pytest.mark.release),
    ],
)
def test_pages_are_current(page):
    import generate

    assert (DOCS / page).read_text() == generate.PAGES[page]()


def test_the_guide_to_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "check.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    for name, block in (("my_loss.py", blocks[0]), ("for_training.py", blocks[2])):
        Path(name).write_text(block)
        assert main(["check", f"{name}:loss"]) == 0
        assert capsys.readouterr().out.startswith(
            "exact: the expected gradient is that of the target"
        )
    names: dict = {}
    exec("\n".join(blocks), names)
    names["test_my_loss"]()


def test_every_name_of_the_contract_is_in_the_guide():
    from logpi.estimators.contract import NAMES

    text = (DOCS / "check.md").read_text()
    assert all(f"`{name}`" in text for name in NAMES)
