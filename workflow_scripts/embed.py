from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.pretraining import embed

with runtime.job(
    snakemake.log[0],
    f"embed {snakemake.wildcards.region_encoder}",
    threads=snakemake.threads,
    gpus=snakemake.resources.gpu,
) as device:
    embed.run(
        ledger_path=Path(snakemake.input.ledger),
        cohort_ledger_path=Path(snakemake.input.cohort_ledger),
        tokens_dir=Path(snakemake.params.tokens),
        encoder_path=Path(snakemake.input.encoder),
        out_path=Path(snakemake.output[0]),
        section=config.EmbedConfig(**snakemake.params.section),
        device=device,
    )
