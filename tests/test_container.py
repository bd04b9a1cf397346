"""The image is of the lock, like every other environment, and holds all that the workflow needs."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
# Each instruction of the Dockerfile with what it says, in order.
LINES = re.findall(r"^([A-Z]+) +(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
KEPT = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)


def test_every_environment_has_the_python_the_lock_was_made_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (image,) = [value for name, value in LINES if name == "FROM"]
    version = re.fullmatch(r"python:(\d+\.\d+)-slim", image)[1]
    environment = yaml.safe_load((ROOT / "envs" / "slpd.yaml").read_text())
    assert f"python={version}" in environment["dependencies"]
    assert f"--python-version {version} " in (ROOT / "requirements.lock").read_text()
    assert f"--python-version {version} " in (ROOT / "Makefile").read_text()
    assert SpecifierSet(project["project"]["requires-python"]).contains(version)


def test_the_lock_has_what_the_project_asks_for_and_hashes_all():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([a-z0-9.-]+)==([^ \\\n]+)", text, re.MULTILINE))
    for line in project["dependencies"] + project["optional-dependencies"]["dev"]:
        wanted = Requirement(line)
        assert wanted.specifier.contains(locked[wanted.name.lower()]), line
    blocks = re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE))
    assert all(re.match(r"[a-z0-9.-]+==", block) for block in blocks)
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_image_installs_the_lock_by_its_hashes_and_runs_as_no_root():
    installs = [value for name, value in LINES if name == "RUN" and "pip" in value]
    assert installs == ["pip install --require-hashes -r /slpd/requirements.lock"]
    (user,) = [value for name, value in LINES if name == "USER"]
    assert user not in ("root", "0")
    assert LINES.index(("USER", user)) < next(n for n, (name, _) in enumerate(LINES) if name == "ENTRYPOINT")
    (entry,) = [json.loads(value) for name, value in LINES if name == "ENTRYPOINT"]
    assert entry == ["snakemake", "--snakefile", "/slpd/Snakefile"]
    assert not [value for name, value in LINES if name == "ADD" or "curl" in value or "wget" in value]


@pytest.fixture
def image(tmp_path):
    """The folder of the image: what .dockerignore lets through."""
    for name in KEPT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / "slpd" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (tmp_path / "slpd").mkdir(exist_ok=True)
            shutil.copy(source, tmp_path / "slpd" / name)
    return tmp_path / "slpd"


@pytest.mark.long
def test_the_image_holds_what_the_workflow_needs(image, tmp_path):
    """A dry run of all stages, from a folder that holds slides alone."""
    (tmp_path / "work").mkdir()
    rows = ["slide_id,patient_id,label,path"]
    for number in range(10):
        (tmp_path / "work" / f"{number}.tiff").touch()
        rows.append(f"{number},{number},{'ab'[number % 2]},{number}.tiff")
    (tmp_path / "work" / "slides.csv").write_text("\n".join(rows))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(image / "Snakefile"), "--cores", "1", "-n"]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True)
    assert "report" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    called = {path.name for path in (ROOT / "workflow_scripts").glob("*.py")}
    assert {path.name for path in (image / "workflow_scripts").glob("*.py")} == called
    assert not {"tests", ".git", "results", "slides.csv"} & {*KEPT}
