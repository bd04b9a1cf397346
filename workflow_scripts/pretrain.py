from pathlib import Path

from slpd_core import config, runtime
from slpd_core.pretraining import pretrain

with runtime.job(
    snakemake.log[0],
    f"pretrain {snakemake.wildcards.run}",
    threads=snakemake.threads,
    gpus=snakemake.resources.gpu,
) as device:
    pretrain.run(
        ledger_path=Path(snakemake.input.ledger),
        tokens_dir=Path(snakemake.params.tokens),
        encoder_path=Path(snakemake.output.encoder),
        history_path=Path(snakemake.output.history),
        prototypes_path=Path(snakemake.output.prototypes),
        checkpoint_path=Path(snakemake.params.checkpoint),
        section=config.PretrainRun(**snakemake.params.section),
        seed=snakemake.params.seed,
        device=device,
        gpus=snakemake.resources.gpu,
        memory_mb=snakemake.resources.mem_mb,
        folds_path=Path(snakemake.input.folds) if snakemake.input.folds else None,
        fold=snakemake.params.fold,
    )
