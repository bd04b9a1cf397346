from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.pretraining import patch_encoder

with runtime.job(
    snakemake.log[0],
    " ".join(["patch_encoder", *snakemake.wildcards]),
    threads=snakemake.threads,
    gpus=snakemake.resources.gpu,
) as device:
    patch_encoder.run(
        weights_path=Path(snakemake.output[0]),
        section=config.PatchEncoderConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
        training=patch_encoder.StageOneSpec(
            recipe=config.StageOneConfig(**snakemake.params.recipe),
            patches_paths=[*map(Path, snakemake.input.patches)],
            history_path=Path(snakemake.output.history[0]),
            checkpoint_path=Path(snakemake.params.checkpoint),
            device=device,
            gpus=snakemake.resources.gpu,
            tracker=snakemake.params.tracker,
        )
        if snakemake.params.recipe
        else None,
    )
