from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.evaluation import labels

with runtime.job(snakemake.log[0], " ".join(["labels", *snakemake.wildcards])):
    labels.run(
        sheet_path=Path(snakemake.input.sheet),
        labels_path=Path(snakemake.params.labels),
        out_path=Path(snakemake.output[0]),
        task=snakemake.wildcards.task,
        **snakemake.params.arguments,
    )
