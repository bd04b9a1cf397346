from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.evaluation import retrieval

with runtime.job(
    snakemake.log[0],
    " ".join(["retrieval", "/".join(snakemake.wildcards)]),
    threads=snakemake.threads,
):
    retrieval.run(
        folds_path=Path(snakemake.input.folds),
        features=snakemake.wildcards.features,
        embed_paths=[*map(Path, snakemake.input.embeds)],
        tokens_dir=Path(snakemake.params.tokens),
        ledger_path=Path(snakemake.input.ledger),
        out_path=Path(snakemake.output[0]),
        section=config.SearchIndexConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
