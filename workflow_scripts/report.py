from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.report import report, task

with runtime.job(snakemake.log[0], "report", threads=snakemake.threads):
    report.run(
        cohort=snakemake.params.cohort,
        ledger_path=Path(snakemake.input.ledger),
        tasks=task.group_paths(
            snakemake.params.tasks,
            [*map(Path, snakemake.input.labels)],
            [*map(Path, snakemake.input.folds)],
            [*map(Path, snakemake.input.remarks)],
            [*map(Path, snakemake.input.evaluate)],
            [*map(Path, snakemake.input.heatmaps)],
        ),
        history_paths=dict(zip(snakemake.params.runs, map(Path, snakemake.input.history), strict=True)),
        monitored_paths=dict(zip(snakemake.params.runs, map(Path, snakemake.input.monitored), strict=True)),
        embed_paths=dict(zip(snakemake.params.runs, map(Path, snakemake.input.embed), strict=True)),
        patch_history_path=Path(snakemake.input.patch_history) if snakemake.input.patch_history else None,
        protocol_paths=[*map(Path, snakemake.input.protocols)],
        external_paths=[*map(Path, snakemake.input.external)],
        gallery_paths=[*map(Path, snakemake.input.galleries)],
        overlays_dir=Path(snakemake.params.overlays),
        outlines_dir=Path(snakemake.params.outlines),
        benchmarks_dir=Path(snakemake.params.benchmarks),
        out_dir=Path(snakemake.output[0]).parent,
        section=config.ReportConfig(**snakemake.params.section),
        seed=snakemake.params.seed,
        patch_encoder=snakemake.params.patch_encoder,
        settings=config.MethodsConfig(**snakemake.params.methods),
    )
