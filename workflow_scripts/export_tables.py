from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.export import export_tables

with runtime.job(snakemake.log[0], "export_tables", threads=snakemake.threads):
    export_tables.run(
        record_paths=[*map(Path, snakemake.input.records)],
        sheet_path=Path(snakemake.input.sheet),
        label_paths=dict(zip(snakemake.params.tasks, map(Path, snakemake.input.labels), strict=True)),
        out_dir=Path(snakemake.output[0]).parents[1],
        formats=snakemake.params.section["formats"],
    )
