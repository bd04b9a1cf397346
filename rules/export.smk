# ARTIFACTS to the files of other tools. Nothing is encoded again; docs/exports.md


rule export_slide:
    input:
        regions=EXPORTS.regions,
        tissue="<results>/tissue/{slide}.geojson",
        tokens=EXPORTS.tokens,
        compared=EXPORTS.compared_tokens,
        embeds=EXPORTS.embeds,
        prototypes=EXPORTS.prototypes,
        attention=EXPORTS.attention,
        predictions=EXPORTS.predictions,
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
        section=CONFIG.export.of_slides.model_dump(),
        version=stage_version("export/export"),
        patch_px=CONFIG.patch_encoder.patch_px,
        stem=EXPORTS.stem,
        slide=untracked(SLIDES.path),
    script:
        "../workflow_scripts/export.py"


rule export_tables:
    input:
        records=expand("<results>/export/slides/{slide}.json", slide=SLIDES.cohort),
        sheet="<results>/sheet/slides.parquet",
        labels=expand("<results>/labels/{task}.parquet", task=EXPORTS.tasks),
    output:
        expand(
            "<results>/export/{format}/exported.csv",
            format=CONFIG.export.of_slides.formats,
        ),
    log:
        "<logs>/export_tables/tables.log",
    benchmark:
        "<benchmarks>/export_tables/tables.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.export.of_slides.model_dump(),
        version=stage_version("export/export_tables"),
        tasks=EXPORTS.tasks,
    script:
        "../workflow_scripts/export_tables.py"


rule h5ad:
    input:
        embed="<results>/embed/{region_encoder}.parquet",
        prototypes="<results>/pretrain/{region_encoder}/prototypes.h5",
        attention=EXPORTS.attention,
    output:
        "<results>/export/h5ad/{region_encoder}.h5ad",
    log:
        "<logs>/h5ad/{region_encoder}.log",
    benchmark:
        "<benchmarks>/h5ad/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        version=stage_version("export/h5ad"),
        regions=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/h5ad.py"


rule huggingface:
    input:
        encoder="<results>/pretrain/{region_encoder}/encoder.safetensors",
        patch_encoder="<results>/patch_encoder/weights.safetensors",
        ledger="<results>/ledger/ledger.parquet",
        history="<results>/pretrain/{region_encoder}/history.parquet",
    output:
        "<results>/export/huggingface/{region_encoder}/model.safetensors",
        "<results>/export/huggingface/{region_encoder}/config.json",
        "<results>/export/huggingface/{region_encoder}/README.md",
    log:
        "<logs>/huggingface/{region_encoder}.log",
    benchmark:
        "<benchmarks>/huggingface/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.regions.selection.model_dump(),
        version=stage_version("export/huggingface"),
        cohort=CONFIG.cohort,
    script:
        "../workflow_scripts/huggingface.py"


rule export:
    input:
        EXPORTS.targets,
