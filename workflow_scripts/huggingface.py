from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.export import huggingface

with runtime.job(snakemake.log[0], f"huggingface {snakemake.wildcards.region_encoder}", threads=snakemake.threads):
    huggingface.run(
        encoder_path=Path(snakemake.input.encoder),
        patch_encoder_path=Path(snakemake.input.patch_encoder),
        ledger_path=Path(snakemake.input.ledger),
        history_path=Path(snakemake.input.history),
        out_dir=Path(snakemake.output[0]).parent,
        cohort=snakemake.params.cohort,
        section=config.RegionsConfig(**snakemake.params.section),
    )
