from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from functools import partial

    from slpd_core import config
    from slpd_core.search import search
    from slpd_core.wsi import region_reader

with runtime.job(snakemake.log[0], f"search {snakemake.wildcards.region_encoder}", threads=snakemake.threads):
    search.run(
        queries=snakemake.params.queries,
        index_path=Path(snakemake.input.index),
        ledger_path=Path(snakemake.input.ledger),
        query_ledger_paths=[*map(Path, snakemake.input.query_ledgers)],
        query_embed_paths=[*map(Path, snakemake.input.query_embeds)],
        label_paths=dict(zip(snakemake.params.tasks, map(Path, snakemake.input.labels), strict=True)),
        slide_paths=dict(zip(snakemake.params.slides, map(Path, snakemake.params.slides.values()), strict=True)),
        tissue_dir=Path(snakemake.params.tissue),
        regions_dir=Path(snakemake.params.regions),
        similar_path=Path(snakemake.output.similar),
        matched_path=Path(snakemake.output.matched),
        page_path=Path(snakemake.output.page),
        section=config.RankingConfig(**snakemake.params.section),
        read_regions=partial(region_reader.iter_region_pixels, state_dir=Path(snakemake.params.state)),
    )
