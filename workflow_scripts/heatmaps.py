from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.evaluation import heatmaps

with runtime.job(
    snakemake.log[0],
    " ".join(["heatmaps", "/".join(snakemake.wildcards)]),
    threads=snakemake.threads,
):
    heatmaps.run(
        folds_path=Path(snakemake.input.folds),
        attention_path=Path(snakemake.input.attention),
        prediction_paths=[*map(Path, snakemake.input.predictions)],
        tissue_dir=Path(snakemake.params.tissue),
        regions_dir=Path(snakemake.params.regions),
        out_path=Path(snakemake.output[0]),
        section=config.HeatmapsConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
        shown_names=snakemake.params.get("shown_names", {}),
    )
