from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from functools import partial

    from slpd_core import config
    from slpd_core.pretraining import gallery
    from slpd_core.wsi import region_reader

with runtime.job(snakemake.log[0], f"gallery {snakemake.wildcards.region_encoder}", threads=snakemake.threads):
    gallery.run(
        slide_paths={slide: Path(path) for slide, path in snakemake.params.slides.items()},
        embed_path=Path(snakemake.input.embed),
        prototypes_path=Path(snakemake.input.prototypes),
        regions_dir=Path(snakemake.params.regions),
        out_path=Path(snakemake.output[0]),
        section=config.GalleryConfig(**snakemake.params.section),
        read_regions=partial(region_reader.iter_region_pixels, state_dir=Path(snakemake.params.state)),
        shown_names=snakemake.params.get("shown_names", {}),
    )
