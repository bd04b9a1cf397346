from pathlib import Path

from slpd_core import config, runtime
from slpd_core.slides import tissue

with runtime.job(snakemake.log[0], f"tissue {snakemake.wildcards.slide}", threads=snakemake.threads):
    tissue.run(
        slide_id=snakemake.wildcards.slide,
        slide_path=Path(snakemake.input[0]),
        mpp=snakemake.params.mpp,
        geojson_path=Path(snakemake.output.geojson),
        overlay_path=Path(snakemake.output.overlay),
        section=config.Tissue(**snakemake.params.section),
    )
