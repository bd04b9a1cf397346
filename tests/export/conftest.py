"""Artifacts of a cohort of four slides: two with regions, one blank, one torn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely

from slpd_core import artifacts, config
from slpd_core.endpoints.kinds import make_endpoint
from slpd_core.export import export, export_tables

SIDE, LEVEL0, GRID, DIM, EMBED = (
    256,
    513,
    4,
    5,
    3,
)  # px of a region, at level 0, patches along it, of tokens, of embeddings
MPP = 0.25
STATUS = {"a": "ok", "b-1": "ok", "blank": "ok", "torn": "quarantined"}
FOCUS = np.array([40.5, 12.25, 99.0], np.float32)
PATIENTS = {"a": "p", "b-1": "p", "blank": "q", "torn": "r"}
REGIONS = {"a": 3, "b-1": 1, "blank": 0, "torn": 0}
BOUNDS = (30, 20)  # of slide a, level-0 px
PROTOTYPES = {("a", 700, 40): 0, ("a", 187, 553): 10, ("a", 700, 553): 2}  # none of b-1
# Attention to the regions of slide a.
FOLDS = {
    0: {(700, 40): 0.5, (187, 553): 0.25, (700, 553): 0.25},
    3: {(700, 40): 0.1, (187, 553): 0.65, (700, 553): 0.25},
}


@dataclass
class Planted:
    """A cohort's artifacts in a folder, and the arrays in them by slide."""

    root: Path
    regions: dict[str, artifacts.Regions] = field(default_factory=dict)
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    embeddings: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def paths(self, slide: str, *, features: bool = True, runs: tuple[str, ...] = ("slpd",)) -> dict:
        """Arguments of `export.run` that locate artifacts."""
        return {
            "regions_path": self.root / "regions" / f"{slide}.h5",
            "tissue_path": self.root / "tissue" / f"{slide}.geojson",
            "tokens_path": self.root / "tokens" / f"{slide}.h5" if features else None,
            "embed_paths": [self.root / "embed" / f"{run}.parquet" for run in runs] if features else [],
            "compared_paths": [*self.root.glob(f"compared/*/tokens/{slide}.h5")] if features else [],
            "slide_path": Path(f"slides/{slide} scan.ome.tif"),
        }

    @property
    def facts(self) -> dict:
        """Arguments of `export.run` that locate what is known of regions."""
        return {
            "prototypes_paths": sorted(self.root.glob("pretrain/*/prototypes.h5")),
            "attention_paths": sorted(self.root.glob("attention/*/*/*.parquet")),
            "prediction_paths": sorted(self.root.glob("evaluate/*/*/*/fold*.parquet")),
        }

    def patch_corners(self, slide: str) -> np.ndarray:
        """Corners of all patches, region by region and row by row."""
        corners = []
        for x, y in self.regions[slide].coords.tolist():
            for row in range(GRID):
                for column in range(GRID):
                    corners.append((x + round(column * LEVEL0 / GRID), y + round(row * LEVEL0 / GRID)))
        return np.array(corners, np.int64).reshape(-1, 2)


@pytest.fixture
def planted(tmp_path) -> Planted:
    """The artifacts, of a grid of 4 x 4 patches of 64 px, with sides at level 0 that are no multiple of it."""
    rng, cohort, rows = np.random.default_rng(0), Planted(tmp_path / "artifacts"), {"slpd": [], "dino.fold1": []}
    meta = artifacts.provenance("test", 1, {})
    for slide, status in STATUS.items():
        n = REGIONS[slide]
        reason = "torn in two" if status == "quarantined" else ""
        info = artifacts.SlideInfo(slide, status, reason, 9000, 8000, MPP, "sheet", "f")
        coords = np.array([[700, 40], [187, 553], [700, 553]], np.int64)[:n].reshape(-1, 2)
        focus = FOCUS if slide == "a" else None
        regions = artifacts.Regions(info, coords, rng.random(n).astype(np.float32), SIDE, LEVEL0, 0.5, focus)
        polygons = tuple(shapely.box(x, y, x + 99, y + 88) for x, y in coords.tolist())
        tissue = artifacts.Tissue(info, polygons, bounds_xy=BOUNDS if slide == "a" else (0, 0))
        cohort.regions[slide] = regions
        cohort.tokens[slide] = rng.normal(size=(n, GRID**2, DIM)).astype(np.float16)
        artifacts.write_tissue(cohort.root / "tissue" / f"{slide}.geojson", tissue, meta)
        artifacts.write_regions(cohort.root / "regions" / f"{slide}.h5", regions, meta)
        encoder = dict.fromkeys(artifacts.ENCODER_META, "x") | {"precision": "fp32"}
        with artifacts.create_tokens(cohort.root / "tokens" / f"{slide}.h5", regions, GRID, DIM, meta | encoder) as out:
            for i in range(n):
                out.tokens[i] = cohort.tokens[slide][i]
        for run, of_run in rows.items():
            cohort.embeddings.setdefault(run, {})[slide] = rng.normal(size=(n, EMBED)).astype(np.float32)
            of_run += [
                (slide, *xy, row) for xy, row in zip(coords.tolist(), cohort.embeddings[run][slide], strict=True)
            ]
    for run, of_run in rows.items():
        frame = pd.DataFrame(of_run, columns=["slide_id", "x", "y", "embedding"])
        path, more = cohort.root / "embed" / f"{run}.parquet", {"embed_dim": str(EMBED), "ledger": "l"}
        artifacts.write_table(path, "embed", frame, meta | more)
    write_region_facts(cohort, meta | {"ledger": "l"})
    return cohort


def write_region_facts(cohort: Planted, meta: dict) -> None:
    """Write prototypes of the run slpd, and attention of two folds of which each tests slide a."""
    corners = [(slide, *xy) for slide in STATUS for xy in cohort.regions[slide].coords.tolist()]
    arrays = {
        "region_slide": np.array([slide for slide, *_ in corners]),
        "coords": np.array([xy for _, *xy in corners]),
        "assignment": np.array([PROTOTYPES.get(key, -1) for key in corners], np.int32),
    }
    artifacts.write_arrays(cohort.root / "pretrain" / "slpd" / "prototypes.h5", arrays, {}, meta)
    rows = [(slide, x, y, fold, FOLDS[fold][x, y]) for fold in FOLDS for slide, x, y in corners if slide == "a"]
    table = pd.DataFrame(rows, columns=["slide_id", "x", "y", "fold", "attention"])
    for run in ("slpd", "dino"):
        path = cohort.root / "attention" / "label" / run / "vit_wsi.parquet"
        artifacts.write_table(path, "attention", table, meta)


@pytest.fixture
def exported(planted, tmp_path) -> Callable[..., Path]:
    """Export all slides of the cohort; returns the folder of the formats."""

    def run(*formats: str, what=("regions", "patches"), to: str = "export", origin="bounds", **options) -> Path:
        section = config.ExportConfig(formats=[*formats], what=[*what], runs=None, qupath_origin=origin)
        facts = planted.facts if "qupath" in formats else {}
        for slide in STATUS:
            out = tmp_path / to
            places = {"out_dir": out, "record_path": out / "slides" / f"{slide}.json"}
            export.run(**planted.paths(slide, **options), **facts, **places, section=section, patch_px=SIDE // GRID)
        return out

    return run


@pytest.fixture
def tables(exported, planted):
    """Export all slides, and write the tables; a task of each kind."""

    def write(*formats, labels=("x", "y"), out="export"):
        folder, meta = exported(*formats, to=out), artifacts.provenance("labels", 1, {})
        slides = pd.DataFrame({"slide_id": [*PATIENTS], "patient_id": [*PATIENTS.values()]})
        sheet = slides.assign(mpp=np.nan, site="")
        artifacts.write_table(planted.root / "sheet.parquet", "sheet", sheet, meta)
        named = slides.assign(label=[labels[0], labels[1], "x", "y"])
        truths = {
            "kind": (make_endpoint("classification", []), named),
            "grade": (make_endpoint("ordinal", ["y", "x"]), named),
            "tmb": (make_endpoint("regression", []), named.assign(value=[1.5, 1.5, 2.0, 3.0])),
            "os": (make_endpoint("survival", []), named.assign(time=[3.0, 3.0, 1.0, 2.0], event=[1, 1, 0, 1])),
        }
        paths = {}
        for task, (endpoint, table) in truths.items():
            paths[task] = planted.root / "labels" / f"{task}.parquet"
            artifacts.write_table(paths[task], "labels", table, meta | endpoint.meta)
        export_tables.run(
            record_paths=[folder / "slides" / f"{slide}.json" for slide in PATIENTS],
            sheet_path=planted.root / "sheet.parquet",
            label_paths=paths,
            out_dir=folder,
            formats=formats,
        )
        return folder

    return write
