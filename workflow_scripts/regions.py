from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.slides import regions
    from slpd_core.wsi import errors

with runtime.job(
    snakemake.log[0],
    f"regions {snakemake.wildcards.slide}",
    threads=snakemake.threads,
    wait_s=snakemake.resources.wait_s,
):
    regions.run(
        tissue_path=Path(snakemake.input.tissue),
        outlined_path=Path(snakemake.input.outlined),
        regions_path=Path(snakemake.output.regions),
        overlay_path=Path(snakemake.output.overlay),
        section=config.RegionsConfig(**snakemake.params.section),
        imported=snakemake.params.imported,
        coordinates_path=snakemake.params.coordinates and Path(snakemake.params.coordinates),
        slide_path=snakemake.params.slide and Path(snakemake.params.slide),
        state_dir=Path(snakemake.params.state),
        quarantine=errors.quarantine_errors(
            snakemake.config["ledger"]["on_bad_slide"], last_attempt=bool(snakemake.resources.last_attempt)
        ),
    )
