from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.report import predict_index

with runtime.job(snakemake.log[0], " ".join(["predict_index", *snakemake.wildcards]), threads=snakemake.threads):
    predict_index.run(
        external=snakemake.wildcards.external,
        ledger_path=Path(snakemake.input.ledger),
        prediction_paths=[*map(Path, snakemake.input.predictions)],
        evaluate_paths=[*map(Path, snakemake.input.evaluate)],
        embed_paths=snakemake.params.embeds,
        tissue_dir=Path(snakemake.params.tissue),
        regions_dir=Path(snakemake.params.regions),
        out_path=Path(snakemake.output[0]),
        runs=snakemake.params.runs,
    )
