from pathlib import Path

from slpd_core import config, runtime
from slpd_core.evaluation import folds

with runtime.job(snakemake.log[0], "folds"):
    folds.run(
        ledger_path=Path(snakemake.input[0]),
        out_path=Path(snakemake.output[0]),
        section=config.Folds(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
