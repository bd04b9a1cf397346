from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.slides import patches
    from slpd_core.wsi import errors

with runtime.job(
    snakemake.log[0],
    f"patches {snakemake.wildcards.slide}",
    threads=snakemake.threads,
    wait_s=snakemake.resources.wait_s,
):
    patches.run(
        slide_path=Path(snakemake.params.slide),
        tissue_path=Path(snakemake.input.tissue),
        regions_path=Path(snakemake.input.regions),
        patches_path=Path(snakemake.output[0]),
        section=config.PatchesConfig(**snakemake.params.section),
        patch_px=snakemake.params.patch_px,
        jpeg_scaled_decoding=snakemake.params.jpeg_scaled_decoding,
        seed=snakemake.params.seed,
        state_dir=Path(snakemake.params.state),
        quarantine=errors.quarantine_errors(
            snakemake.config["ledger"]["on_bad_slide"], last_attempt=bool(snakemake.resources.last_attempt)
        ),
    )
