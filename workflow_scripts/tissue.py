from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.slides import tissue
    from slpd_core.wsi import errors

with runtime.job(
    snakemake.log[0],
    f"tissue {snakemake.wildcards.slide}",
    threads=snakemake.threads,
    wait_s=snakemake.resources.wait_s,
):
    tissue.run(
        slide_id=snakemake.wildcards.slide,
        slide_path=Path(snakemake.params.slide),
        mask_path=snakemake.params.outline_path,
        outline=snakemake.params.outline and config.TissueOutlineConfig(**snakemake.params.outline),
        mpp=snakemake.params.mpp,
        geojson_path=Path(snakemake.output.geojson),
        overlay_path=Path(snakemake.output.overlay),
        section=config.TissueSegmentationConfig(**snakemake.params.section),
        state_dir=Path(snakemake.params.state),
        quarantine=errors.quarantine_errors(
            snakemake.config["ledger"]["on_bad_slide"], last_attempt=bool(snakemake.resources.last_attempt)
        ),
    )
