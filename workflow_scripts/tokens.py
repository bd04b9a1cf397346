from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.slides import tokens
    from slpd_core.wsi import errors

with runtime.job(
    snakemake.log[0],
    " ".join([snakemake.rule, *snakemake.wildcards]),
    threads=snakemake.threads,
    gpus=snakemake.resources.gpu,
    wait_s=snakemake.resources.wait_s,
) as device:
    tokens.run(
        slide_paths=[*map(Path, snakemake.params.slide_paths)],
        regions_paths=[*map(Path, snakemake.input.regions)],
        weights_path=Path(snakemake.input.weights),
        tokens_paths=[*map(Path, snakemake.output.tokens)],
        encoded_paths=[*map(Path, snakemake.output.encoded)],
        features_paths=snakemake.params.features_paths,
        section=config.TokenEncodingConfig(**snakemake.params.section),
        device=device,
        threads=snakemake.threads,
        state_dir=Path(snakemake.params.state),
        quarantine=errors.quarantine_errors(
            snakemake.config["ledger"]["on_bad_slide"], last_attempt=bool(snakemake.resources.last_attempt)
        ),
        cache_dir=snakemake.params.cache_dir and Path(snakemake.params.cache_dir),
        kept_dir=snakemake.params.kept_dir and Path(snakemake.params.kept_dir),
    )
