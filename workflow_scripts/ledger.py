from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core import config
    from slpd_core.slides import ledger

with runtime.job(snakemake.log[0], " ".join(["ledger", *snakemake.wildcards])):
    ledger.run(
        sheet_path=Path(snakemake.input.sheet),
        tissue_paths=[*map(Path, snakemake.input.tissue)],
        encoded_paths=[*map(Path, snakemake.input.encoded)],
        out_path=Path(snakemake.output[0]),
        section=config.LedgerConfig(**snakemake.params.section),
        external=snakemake.params.get("external", False),
        known_tissue_paths=[*map(Path, snakemake.input.get("cohort", []))],
        unmatched=snakemake.params.get("unmatched", []),
    )
