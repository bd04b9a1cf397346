from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.preflight import preflight

with runtime.job(snakemake.log[0], "preflight", threads=snakemake.threads, gpus=snakemake.resources.gpu) as device:
    preflight.run(
        settings=config.load(snakemake.config),
        sheets=[*map(Path, snakemake.params.sheets)],
        results=Path(snakemake.params.results),
        device=device,
        cores=snakemake.params.cores,
        gpus=snakemake.params.gpus,
        pretrain_mb=snakemake.params.pretrain_mb,
    )
