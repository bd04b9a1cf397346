"""The diffs of docs/extending.md apply to this tree, and the commands below them succeed there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTS = (
    "slpd_core",
    "tests",
    "rules",
    "workflow_scripts",
    "envs",
    "profiles",
    "config.yaml",
    "Snakefile",
    "pyproject.toml",
)
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "extending.md").read_text(), flags=re.MULTILINE)[1:]


def read_block(section: str, language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    return block


@pytest.fixture
def tree(tmp_path) -> Path:
    """A copy of the tree, with a sheet of slides that nothing reads."""
    for part in PARTS:
        source, target = ROOT / part, tmp_path / part
        shutil.copytree(
            source, target, ignore=shutil.ignore_patterns("__pycache__")
        ) if source.is_dir() else shutil.copy(source, target)
    rows = [f"s{i},p{i},{'xy'[i % 2]},s{i}.tiff" for i in range(20)]
    for i in range(20):
        (tmp_path / f"s{i}.tiff").touch()
    (tmp_path / "slides.csv").write_text("\n".join(["slide_id,patient_id,label,path", *rows]))
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_an_extension_is_a_diff_that_applies_and_works(tree, section):
    diff = read_block(section, "diff")
    assert len([line for line in diff.splitlines() if re.match(r"[+-](?![+-]{2} )", line)]) <= 160
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=tree, check=True)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(tree), "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    for command in read_block(section, "bash").splitlines():
        done = subprocess.run(command, shell=True, cwd=tree, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if command.startswith("snakemake"):
            assert re.search(r"^density +1$", done.stdout + done.stderr, re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_a_diff_leans_on_few_lines_of_the_tree(section):
    """Each hunk on two lines of context at most: others may change without it."""
    hunks = re.split(r"^@@.*\n", read_block(section, "diff"), flags=re.MULTILINE)[1:]
    assert all(len(re.findall(r"^ ", hunk, re.MULTILINE)) <= 2 for hunk in hunks)


def test_there_are_four_extensions():
    headings = [section.partition("\n")[0] for section in SECTIONS]
    assert headings == ["A classifier", "A source of patch encoders", "An objective", "A stage"]
