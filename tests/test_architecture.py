"""The rules of the house, checked on the source: who imports whom, and that each stage word has all its places."""

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from tests.shipped_config import read_shipped

ROOT = Path(__file__).parents[1]
CHAPTERS = {
    "slides": ("sheet", "tissue", "regions", "patches", "tokens", "ledger", "slide_index"),
    "pretraining": ("patch_encoder", "pretrain", "embed", "gallery"),
    "evaluation": ("labels", "folds", "evaluate", "few_shot", "retrieval", "attention", "heatmaps", "predict"),
    "report": ("report", "external", "predict_index"),
    "search": ("search_index", "search"),
    "export": ("export", "export_tables", "h5ad", "huggingface"),
}
# Parameters of rules whose settings name something: what is named, not the names. Some have no settings.
PARAMETERS = {
    "sheet": "rows=",
    "slide_index": "version=",
    "labels": "rows=",
    "predict": "rows=",
    "external": "reference=",
    "predict_index": "runs=",
    "attention": "version=",
    "h5ad": "version=",
}
STAGES = [(chapter, stage) for chapter, stages in CHAPTERS.items() for stage in stages]
# Floors from the ground up: a room imports rooms of lower floors, and on the ground those before it.
FLOORS = (
    ("runtime",),
    ("artifacts",),
    ("config",),
    ("wsi",),
    ("encoders",),
    ("ssl", "drawing", "endpoints", "prototypes"),
    tuple(CHAPTERS),
    ("workflow",),
    ("demo", "preflight"),
    ("api",),
    ("__init__",),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# A library and the only modules, or folders of modules, that may import it.
HOMES = {
    "openslide": {"wsi/reader.py", "wsi/sources.py"},
    "pyvips": {"wsi/writer.py"},
    "cv2": {
        *("wsi/read_plan.py", "wsi/reader.py"),
        *(f"slides/{module}.py" for module in ("segmentation", "focus", "glass", "ink", "patch_pixels", "stains")),
    },
    "simplejpeg": {"wsi/tiff_tiles.py"},
    "imagecodecs": {"wsi/tile_codecs.py", "wsi/zarr_codecs.py"},
    "tifffile": {"wsi/tiff_levels.py", "wsi/tiff_pictures.py"},
    "h5py": {"artifacts/hdf5.py"},
    "pyarrow": {"artifacts/tables.py"},
    "safetensors": {"artifacts/weights.py", "artifacts/torch_files.py", "encoders/foreign_weights.py"},
    "matplotlib": {"report/figures"},
    "timm": {"encoders/vit.py", "encoders/pretrained_weights.py", "encoders/region_encoder.py"},
    "huggingface_hub": {"encoders/hub.py"},
    "openpyxl": {"artifacts/spreadsheets.py"},
    "snakemake": set(),
}
MODULES = sorted(path.relative_to(ROOT / "slpd_core") for path in (ROOT / "slpd_core").rglob("*.py"))


@cache
def imports(path: Path) -> set[str]:
    """Every dotted name a module imports, wherever in the module."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / "slpd_core" / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_only(path):
    room = path.parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "slpd_core" and parts[1] not in ("__version__", room):
            assert FLOOR_OF[parts[1]] < FLOOR_OF[room], f"slpd_core/{path} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_each_library_has_one_home(path):
    for name in imports(path):
        library = name.split(".")[0]
        homes = HOMES.get(library, {path.as_posix()})
        assert {path.as_posix(), path.parent.as_posix()} & homes, f"slpd_core/{path} imports {library}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_nothing_is_unpickled(path):
    assert {name for name in imports(path) if name.startswith("pickle")} <= {"pickle.UnpicklingError"}
    assert "weights_only=False" not in (ROOT / "slpd_core" / path).read_text()


@pytest.mark.parametrize(("chapter", "stage"), STAGES, ids=[stage for _, stage in STAGES])
def test_each_stage_has_all_its_places(chapter, stage):
    module = (ROOT / "slpd_core" / chapter / f"{stage}.py").read_text()
    rules = (
        ROOT / "rules" / ("predict.smk" if stage in ("predict", "external", "predict_index") else f"{chapter}.smk")
    ).read_text()
    assert re.search(r"^VERSION = \d+$", module, re.MULTILINE), f"{stage}: no VERSION"
    assert re.search(r"^def run\(\*?", module, re.MULTILINE), f"{stage}: no stage function"
    # Stages that are named by another's settings.
    sections = {
        "external": "predict",
        "predict_index": "predict",
        "attention": "heatmaps",
        "search_index": "search",
        "slide_index": "ledger",
    }
    sections |= dict.fromkeys(("few_shot", "retrieval"), "evaluate")
    sections |= dict.fromkeys(CHAPTERS["export"], "export")
    section = sections.get(stage, stage)
    assert section in read_shipped()
    assert (ROOT / "workflow_scripts" / f"{stage}.py").exists()
    assert (ROOT / "tests" / chapter / f"test_{stage}.py").exists()
    # `snakemake predict` is about all external cohorts, `snakemake export` about all slides, `snakemake search` a page.
    rule = {"predict": "predict_external", "export": "export_slide", "search": "search_slides"}.get(stage, stage)
    block = re.search(rf"^rule {rule}:\n(?:(?:    .*)?\n)*", rules, re.MULTILINE)
    assert block, f"no rule {rule}"
    for needed in (
        f"workflow_scripts/{stage}.py",
        f'stage_version("{chapter}/{stage}")',
        f'"<logs>/{stage}/',
        f'"<benchmarks>/{stage}/',
        PARAMETERS.get(stage, "section="),
    ):
        assert needed in block[0], f"rule {stage} lacks {needed}"


@pytest.mark.parametrize("path", sorted((ROOT / "workflow_scripts").glob("*.py")), ids=lambda path: path.name)
def test_a_script_is_one_call(path):
    kinds = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.ListComp, ast.Lambda)
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    at_once = re.findall(r"^(?:from|import) .*", path.read_text(), re.MULTILINE)
    assert at_once == ["from pathlib import Path", "from slpd_core import runtime"], (
        "the others: in runtime.fast_imports()"
    )


def test_common_only_loads_and_names():
    text = (ROOT / "rules" / "common.smk").read_text()
    assert len(text.splitlines()) <= 100
    assert not re.search(r"^ *(def|class) ", text, re.MULTILINE)


def test_only_common_has_python():
    for path in (ROOT / "rules").glob("*.smk"):
        has_python = re.search(r"^(def|import|from|for (?!job in JOINED_SLIDES)|try) ", path.read_text(), re.MULTILINE)
        assert bool(has_python) == (path.name == "common.smk"), path


def test_the_environment_equals_the_lock():
    """envs/slpd.yaml holds every direct dependency of pyproject.toml at a version the lock has."""
    lock = dict.fromkeys(
        re.findall(r"^([a-z0-9-]+==[^ \\\n]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    )
    environment = yaml.safe_load((ROOT / "envs" / "slpd.yaml").read_text())
    pins = next(item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    direct = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert [pin.split("==")[0] for pin in pins] == [re.split(r"[<>=]", name)[0] for name in direct]
    assert [pin for pin in pins if pin not in lock] == []
