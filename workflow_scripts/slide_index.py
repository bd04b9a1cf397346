from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.slides import slide_index

with runtime.job(snakemake.log[0], "slide_index"):
    slide_index.run(
        sheet_path=Path(snakemake.input.sheet),
        tissue_paths=[*map(Path, snakemake.input.tissue)],
        encoded_paths=[*map(Path, snakemake.input.encoded)],
        overlays_dir=Path(snakemake.params.overlays),
        out_path=Path(snakemake.output[0]),
    )
