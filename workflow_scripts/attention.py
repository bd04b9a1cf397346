from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.evaluation import attention

with runtime.job(
    snakemake.log[0],
    " ".join(["attention", "/".join(snakemake.wildcards)]),
    threads=snakemake.threads,
):
    attention.run(
        folds_path=Path(snakemake.input.folds),
        model_paths=[*map(Path, snakemake.input.models)],
        embed_paths=[*map(Path, snakemake.input.embeds)],
        out_path=Path(snakemake.output[0]),
    )
