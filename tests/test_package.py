"""The package without its checkout: built, installed elsewhere, used from another folder."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import slpd_core

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "config.yaml")
USE = """
import slpd_core as slpd

slpd.draw_demo_slide("drawn.tiff", side_px=1024)
with slpd.Slide("drawn.tiff") as slide:
    regions = slpd.select_regions(slpd.segment_tissue(slide), size_px=256)
    tokens = slpd.encode(slide, regions, slpd.build_patch_encoder("random", name="test_vit", patch_px=64, device="cpu"))
embeddings = slpd.embed(tokens, slpd.build_region_encoder(token_dim=64, device="cpu"))
prototypes = slpd.cluster_embeddings({"drawn": embeddings}, n_prototypes=2)
print(slpd.__file__, len(regions.coords), embeddings.shape[1], slpd.default_config().pretrain.n_prototypes)
"""


def run(*command, folder, **environment):
    done = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of the source distribution of this checkout, both built without a network."""
    folder = tmp_path_factory.mktemp("build")
    source = folder / "source"
    shutil.copytree(ROOT / "slpd_core", source / "slpd_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    run(sys.executable, "-c", build, folder=source)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        assert f"{archive.name.removesuffix('.tar.gz')}/config.yaml" in file.getnames()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", str(archive), folder=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_settings(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
        assert file.read("slpd_core/config/config.yaml") == (ROOT / "config.yaml").read_bytes()
        metadata = file.read(next(name for name in file.namelist() if name.endswith("/METADATA"))).decode()
    files = [path for path in (ROOT / "slpd_core").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names == {path.relative_to(ROOT).as_posix() for path in files} | {"slpd_core/config/config.yaml"}
    assert "slpd_core/py.typed" in names
    assert f"\nVersion: {slpd_core.__version__}\n" in metadata


def test_the_wheel_works_from_anywhere(wheel, tmp_path):
    installed, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index")
    run(*pip, "--target", str(installed), str(wheel), folder=elsewhere)
    used = run(sys.executable, "-c", USE, folder=elsewhere, PYTHONPATH=str(installed)).split()
    path, count, dim, prototypes = used
    assert Path(path) == installed / "slpd_core" / "__init__.py"
    assert (int(count) >= 2, int(dim), int(prototypes)) == (True, 192, 4)


def test_the_pythons_are_the_same_everywhere():
    """pyproject.toml, its classifiers and the Makefile name the same range."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [text.split(" :: ")[-1] for text in project["classifiers"] if " :: Python :: 3." in text]
    first, last = named[0], named[-1]
    assert project["requires-python"] == f">={first},<3.{int(last[2:]) + 1}"
    assert [f"3.{minor}" for minor in range(int(first[2:]), int(last[2:]) + 1)] == named
    for name in ("Makefile", "README.md"):
        assert f"{first} to {last}" in (ROOT / name).read_text(), name
