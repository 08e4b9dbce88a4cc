"""The notebooks of `examples/` run from top to bottom, in an empty folder, and draw what they promise."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from factories import ROOT
from nbclient import NotebookClient

pytestmark = pytest.mark.exhaustive
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # for `!propl`
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(str(output.get("text", "")) for output in outputs)
    assert "Traceback" not in text and "error: " not in text, text[-3000:]
    if path.stem == "first_steps":
        assert sum("image/png" in output.get("data", {}) for output in outputs) == 2
        assert "head circumference" in text and len(list((tmp_path / "masks").glob("*_fetal_head.png"))) == 2
    else:
        masks = list((tmp_path / "masks_own").glob("*_fetal_head.png"))
        assert "mean" in text and len(masks) == 12


def test_notebooks_are_committed_without_outputs() -> None:
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells), path
