from pathlib import Path

from slpd_core import config, runtime
from slpd_core.slides import patch_encoder

with runtime.job(snakemake.log[0], " ".join(["patch_encoder", *snakemake.wildcards]), threads=snakemake.threads):
    patch_encoder.run(
        weights_path=Path(snakemake.output[0]),
        section=config.PatchEncoder(**snakemake.params.section),
        seed=snakemake.params.seed,
    )
