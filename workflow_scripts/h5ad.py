from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.export import h5ad

with runtime.job(snakemake.log[0], f"h5ad {snakemake.wildcards.region_encoder}", threads=snakemake.threads):
    h5ad.run(
        embed_path=Path(snakemake.input.embed),
        prototypes_path=Path(snakemake.input.prototypes),
        attention_paths=[*map(Path, snakemake.input.attention)],
        regions_dir=Path(snakemake.params.regions),
        out_path=Path(snakemake.output[0]),
    )
