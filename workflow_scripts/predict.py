from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.evaluation import predict

with runtime.job(
    snakemake.log[0], " ".join(["predict", *snakemake.wildcards]), threads=snakemake.threads, keep_memory=False
):
    predict.run(
        ledger_path=Path(snakemake.input.ledger),
        models=snakemake.params.rows,
        tissue_dir=Path(snakemake.params.tissue),
        regions_dir=Path(snakemake.params.regions),
        heatmaps_dir=Path(snakemake.output.heatmaps),
        out_path=Path(snakemake.output.predictions),
        folds_path=Path(snakemake.output.folds),
    )
