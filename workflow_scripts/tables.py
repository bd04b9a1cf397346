from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.report import tables

with runtime.job(snakemake.log[0], "tables", threads=snakemake.threads):
    tables.run(
        paths=snakemake.params.paths,
        sections=config.joined_tables(snakemake.params.section),
        out_dir=Path(snakemake.params.out),
    )
