"""Export of a slide of 60 regions in each format: seconds in a process that has imported everything."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from slpd_core import artifacts, config
from slpd_core.export import export

MAX_SECONDS = 1.0  # of a slide, in any one format
N_REGIONS, GRID, TOKEN_DIM, EMBED_DIM = 60, 16, 384, 192
N_SLIDES, ROUNDS = 200, 3  # slides of the table of embeddings; of which the least counts


def write_artifacts(root: Path) -> None:
    """Write regions, tissue, tokens and embeddings of a slide, the latter among those of a cohort."""
    rng, meta = np.random.default_rng(0), artifacts.provenance("benchmark", 1, {})
    info = artifacts.SlideInfo("s0", artifacts.OK, "", 100_000, 80_000, 0.25, "sheet", "f")
    corners = np.stack([np.arange(N_REGIONS) % 10, np.arange(N_REGIONS) // 10], 1) * 8192
    regions = artifacts.Regions(info, corners, np.ones(N_REGIONS, np.float32), 4096, 8192, 0.5)
    artifacts.write_regions(root / "regions.h5", regions, meta)
    tissue = artifacts.Tissue(info, (shapely.box(0, 0, 81_920, 49_152),))
    artifacts.write_tissue(root / "tissue.geojson", tissue, meta)
    encoder = dict.fromkeys(artifacts.ENCODER_META, "x") | {"precision": "fp32"}
    with artifacts.create_tokens(root / "tokens.h5", regions, GRID, TOKEN_DIM, meta | encoder) as out:
        for i in range(N_REGIONS):
            out.tokens[i] = rng.normal(size=(GRID**2, TOKEN_DIM)).astype(np.float16)
    rows = [(f"s{slide}", *xy) for slide in range(N_SLIDES) for xy in corners.tolist()]
    frame = pd.DataFrame(rows, columns=["slide_id", "x", "y"])
    frame["embedding"] = [*rng.normal(size=(len(rows), EMBED_DIM)).astype(np.float32)]
    prototypes = {"region_slide": frame["slide_id"].to_numpy(str), "coords": frame[["x", "y"]].to_numpy()}
    prototypes["assignment"] = rng.integers(0, 4, len(rows)).astype(np.int32)
    artifacts.write_arrays(root / "slpd" / "prototypes.h5", prototypes, {}, meta)
    artifacts.write_table(root / "slpd.parquet", "embed", frame, meta | {"embed_dim": str(EMBED_DIM)})


def time_export(root: Path, formats: list[str]) -> float:
    """Return the least seconds in which the slide is exported."""
    values = {"formats": formats, "what": ["regions", "patches"], "runs": None, "qupath_origin": "bounds"}
    section = config.ExportConfig.model_validate(values)
    least = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        export.run(
            regions_path=root / "regions.h5",
            tissue_path=root / "tissue.geojson",
            tokens_path=root / "tokens.h5",
            embed_paths=[root / "slpd.parquet"],
            slide_path=Path("s0.svs"),
            out_dir=root / "export",
            record_path=root / "record.json",
            section=section,
            patch_px=256,
            prototypes_paths=[root / "slpd" / "prototypes.h5"] if "qupath" in formats else [],
        )
        least = min(least, time.perf_counter() - started)
    return least


def main() -> None:
    """Print the table."""
    print("| formats | s | at most |\n|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        write_artifacts(Path(name))
        time_export(Path(name), [*export.WRITERS])  # imports
        for formats in [*([one] for one in export.WRITERS), [*export.WRITERS]]:
            title = formats[0] if len(formats) == 1 else f"all {len(formats)}"
            print(f"| {title} | {time_export(Path(name), formats):.2f} | {MAX_SECONDS} |", flush=True)
