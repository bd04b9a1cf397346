"""The examples run as they are: the lines in README.md, the notebooks."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_a_slide_becomes_prototypes_in_twelve_lines(tmp_path, monkeypatch):
    section = re.search(r"^## In Python\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    count = len(names["regions"].coords)
    assert count >= 4
    assert (names["tokens"].shape, names["embeddings"].shape) == ((count, 4, 384), (count, 192))
    centers = names["prototypes"].centers[0]
    assigned = names["prototypes"].assignment
    for index, center in enumerate(centers):  # a prototype is the mean of its regions
        np.testing.assert_allclose(center, names["embeddings"][assigned == index].mean(0), atol=1e-4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_hold_no_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    assert not [cell for cell in code if cell["outputs"] or cell["execution_count"]]


def test_the_quickstart_runs(run_notebook, tmp_path):
    printed = run_notebook("quickstart.ipynb", tmp_path)
    assert re.search(r"\(2048, 2048\) px at 0\.5 um/px, 0\.\d\d mm2 of tissue, 1\d regions", printed)
    assert "figures: 3" in printed
