from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.evaluation import evaluate

with runtime.job(
    snakemake.log[0],
    " ".join(["evaluate", "/".join(snakemake.wildcards)]),
    threads=snakemake.threads,
    keep_memory=False,
):
    evaluate.run(
        folds_path=Path(snakemake.input.folds),
        folds=snakemake.params.folds,
        features=snakemake.wildcards.features,
        classifier=snakemake.wildcards.classifier,
        embed_path=Path(snakemake.input.embed) if snakemake.input.embed else None,
        tokens_dir=Path(snakemake.params.tokens),
        ledger_path=Path(snakemake.input.ledger),
        out_paths=[*map(Path, snakemake.output.predictions)],
        model_paths=[*map(Path, snakemake.output.models)],
        section=config.ClassifierTrainingConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
