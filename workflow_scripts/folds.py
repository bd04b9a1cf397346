from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.evaluation import folds

with runtime.job(snakemake.log[0], f"folds {snakemake.wildcards.task}"):
    folds.run(
        ledger_path=Path(snakemake.input.ledger),
        sheet_path=Path(snakemake.input.sheet),
        labels_path=Path(snakemake.input.labels),
        out_path=Path(snakemake.output.folds),
        remarks_path=Path(snakemake.output.remarks[0]),
        section=config.FoldsConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
