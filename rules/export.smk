# ARTIFACTS to the files of other tools. Nothing is encoded again; docs/exports.md


rule export_slide:
    input:
        regions=EXPORTS.regions,
        tissue="<results>/tissue/{slide}.geojson",
        tokens=EXPORTS.tokens,
        embeds=EXPORTS.embeds,
    output:
        "<results>/export/slides/{slide}.json",
    log:
        "<logs>/export/{slide}.log",
    benchmark:
        "<benchmarks>/export/{slide}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(10),
    params:
        section=CONFIG.export.model_dump(),
        version=stage_version("export/export"),
        patch_px=CONFIG.patch_encoder.patch_px,
        stem=EXPORTS.stem,
        slide=untracked(SLIDES.path),
        out=str(PATHS.export_dir()),
    script:
        "../workflow_scripts/export.py"


rule export_tables:
    input:
        records=expand("<results>/export/slides/{slide}.json", slide=SLIDES.cohort),
        sheet="<results>/sheet/slides.parquet",
        labels=expand("<results>/labels/{task}.parquet", task=EXPORTS.tasks),
    output:
        expand("<results>/export/{format}/exported.csv", format=CONFIG.export.formats),
    log:
        "<logs>/export_tables/tables.log",
    benchmark:
        "<benchmarks>/export_tables/tables.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.export.model_dump(),
        version=stage_version("export/export_tables"),
        tasks=EXPORTS.tasks,
        out=str(PATHS.export_dir()),
    script:
        "../workflow_scripts/export_tables.py"


rule export:
    input:
        EXPORTS.targets,
