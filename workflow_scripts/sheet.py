from pathlib import Path

from slpd_core import runtime

with runtime.importing():
    from slpd_core import config
    from slpd_core.slides import sheet

with runtime.job(snakemake.log[0], "sheet"):
    sheet.run(
        sheet_path=Path(snakemake.input[0]),
        out_path=Path(snakemake.output[0]),
        section=config.Sheet(**snakemake.params.section),
        labelled=snakemake.params.labelled,
    )
