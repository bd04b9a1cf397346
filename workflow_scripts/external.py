from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.report import external

with runtime.job(snakemake.log[0], " ".join(["external", *snakemake.wildcards]), threads=snakemake.threads):
    external.run(
        external=snakemake.wildcards.external,
        task=snakemake.wildcards.task,
        labels_path=Path(snakemake.input.labels),
        predictions_path=Path(snakemake.input.predictions),
        ledger_path=Path(snakemake.input.ledger),
        cohort_ledger_path=Path(snakemake.input.cohort_ledger),
        evaluate_paths=[*map(Path, snakemake.input.evaluate)],
        out_dir=Path(snakemake.output.labeled).parent,
        figures_dir=Path(snakemake.output.figures),
        runs=snakemake.params.runs,
        reference=snakemake.params.reference,
        seed=snakemake.params.seed,
    )
