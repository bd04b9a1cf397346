from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.search import search_index

with runtime.job(snakemake.log[0], f"search_index {snakemake.wildcards.region_encoder}", threads=snakemake.threads):
    search_index.run(
        embed_path=Path(snakemake.input.embed),
        out_path=Path(snakemake.output[0]),
        section=config.SearchIndexConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
