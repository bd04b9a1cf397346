from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.pretraining import pretrain

with runtime.job(
    snakemake.log[0],
    f"pretrain {snakemake.wildcards.region_encoder}",
    threads=snakemake.threads,
    gpus=snakemake.resources.gpu // snakemake.resources.nodes,
) as device:
    pretrain.run(
        pretrain.RunSpec(
            ledger_path=Path(snakemake.input.ledger),
            tokens_dir=Path(snakemake.params.tokens),
            folds_path=Path(snakemake.input.folds) if snakemake.input.folds else None,
            fold=snakemake.params.fold,
            checkpoint_path=Path(snakemake.params.checkpoint),
            section=config.PretrainRunConfig(**snakemake.params.section),
            seed=snakemake.params.seed,
            device=device,
            gpus=snakemake.resources.gpu // snakemake.resources.nodes,
            memory_mb=snakemake.resources.mem_mb,
            tracker=snakemake.params.tracker,
        ),
        encoder_path=Path(snakemake.output.encoder),
        history_path=Path(snakemake.output.history[0]),
        prototypes_path=Path(snakemake.output.prototypes),
        monitored_path=Path(snakemake.output.monitored),
        nodes=snakemake.resources.nodes,
        threads=snakemake.threads,
        log_path=snakemake.log[0],
    )
