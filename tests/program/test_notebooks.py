"""The notebooks run, and what the derivation's prints is what it shows."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "examples" / "notebooks"


def cells(name):
    """(code, what it printed when the notebook was written) of each cell."""
    notebook = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            printed = [
                "".join(output["text"])
                for output in cell["outputs"]
                if output["output_type"] == "stream" and output["name"] == "stdout"
            ]
            assert cell["outputs"] or "=" in cell["source"][-1] or "import" in cell["source"][0]
            yield "".join(cell["source"]), "".join(printed)


def run(code, names):
    """What a cell prints."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code, "notebook", "exec"), names)
    return said.getvalue()


def rounded(text):
    """Without what rounding decides."""
    return re.sub(r"\d\.?\d*e-1\d", "0", text)


def test_the_derivation_shows_what_it_computes():
    names: dict = {}
    for code, printed in cells("derivation"):
        assert rounded(run(code, names)) == rounded(printed), code
    assert names["derivation"].difference < 1e-9


@pytest.mark.release
def test_the_notebook_of_training_runs(tmp_path, monkeypatch):
    """With short budgets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    short = {"60_000": "3_000", "10_000": "1_000", "90_000": "4_000", "15_000": "500"}
    names: dict = {}
    for code, _ in cells("training"):
        for whole, cut in short.items():
            code = code.replace(whole, cut)
        run(code, names)
    for made in ("cartpole.gif", "cartpole.html", "cartpole.onnx"):
        assert (tmp_path / made).is_file()
