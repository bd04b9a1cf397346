from pathlib import Path

from slpd_core import runtime

with runtime.fast_imports():
    from slpd_core.slides import sheet

with runtime.job(snakemake.log[0], "sheet"):
    sheet.run(
        sheet_path=snakemake.params.sheet,
        out_path=Path(snakemake.output[0]),
        columns=snakemake.params.columns,
        external=snakemake.params.external,
    )
