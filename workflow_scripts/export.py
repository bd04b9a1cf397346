from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.export import export

with runtime.job(snakemake.log[0], f"export {snakemake.wildcards.slide}", threads=snakemake.threads):
    export.run(
        regions_path=Path(snakemake.input.regions),
        tissue_path=Path(snakemake.input.tissue),
        tokens_path=Path(snakemake.input.tokens[0]) if snakemake.input.tokens else None,
        compared_paths=[*map(Path, snakemake.input.compared)],
        embed_paths=[*map(Path, snakemake.input.embeds)],
        slide_path=Path(snakemake.params.slide),
        out_dir=Path(snakemake.output[0]).parents[1],
        record_path=Path(snakemake.output[0]),
        section=config.ExportConfig(**snakemake.params.section),
        patch_px=snakemake.params.patch_px,
        prototypes_paths=[*map(Path, snakemake.input.prototypes)],
        attention_paths=[*map(Path, snakemake.input.attention)],
        prediction_paths=[*map(Path, snakemake.input.predictions)],
    )
