# Slides of EXTERNAL COHORTS to PREDICTIONS: the stages up to `embed` on them, then the cohort's classifiers


use rule sheet as external_sheet with:
    output:
        "<results>/predict/{external}/slides.parquet",
    log:
        "<logs>/predict/{external}/sheet.log",
    benchmark:
        "<benchmarks>/predict/{external}/sheet.tsv"
    params:
        version=stage_version("slides/sheet"),
        sheet=untracked(
            lambda wildcards: (CONFIG.predict.sheet | SEARCHES.new_slides)[
                wildcards.external
            ]
        ),
        columns=untracked(CONFIG.sheet.columns),
        external=True,
        rows=lambda wildcards: sheet.sheet_fingerprint(EXTERNAL[wildcards.external]),


use rule ledger as external_ledger with:
    input:
        sheet="<results>/predict/{external}/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.external_ids),
        encoded=expand("<results>/encoded/{slide}.h5", slide=SLIDES.external_ids),
        # Finds external slides that are the cohort's under other names.
        cohort=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.cohort),
    output:
        "<results>/predict/{external}/ledger.parquet",
    log:
        "<logs>/predict/{external}/ledger.log",
    benchmark:
        "<benchmarks>/predict/{external}/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        external=True,


use rule compared_ledger as external_compared_ledger with:
    input:
        sheet="<results>/predict/{external}/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.external_ids),
        encoded=expand(
            "<results>/compared/{encoder}/encoded/{slide}.h5",
            slide=SLIDES.external_ids,
            allow_missing=True,
        ),
    output:
        "<results>/predict/{external}/compared/{encoder}/ledger.parquet",
    log:
        "<logs>/predict/{external}/compared/{encoder}/ledger.log",
    benchmark:
        "<benchmarks>/predict/{external}/compared/{encoder}/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        external=True,


use rule embed as external_embed with:
    input:
        ledger="<results>/predict/{external}/ledger.parquet",
        cohort_ledger="<results>/ledger/ledger.parquet",
        encoder="<results>/pretrain/{region_encoder}/encoder.safetensors",
    output:
        "<results>/predict/{external}/embed/{region_encoder}.parquet",
    log:
        "<logs>/predict/{external}/embed/{region_encoder}.log",
    benchmark:
        "<benchmarks>/predict/{external}/embed/{region_encoder}.tsv"


rule predict_external:
    input:
        ROWS.external_inputs,
        ledger="<results>/predict/{external}/ledger.parquet",
    output:
        predictions="<results>/predict/{external}/{task}/predictions.csv",
        folds="<results>/predict/{external}/{task}/folds.parquet",
        heatmaps=directory("<results>/predict/{external}/{task}/heatmaps"),
    log:
        "<logs>/predict/{external}/predict/{task}.log",
    benchmark:
        "<benchmarks>/predict/{external}/predict/{task}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(120),
    params:
        version=stage_version("evaluation/predict"),
        rows=ROWS.external_models,
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/predict.py"


use rule labels as external_labels with:
    input:
        sheet="<results>/predict/{external}/slides.parquet",
    output:
        "<results>/predict/{external}/labels/{task}.parquet",
    log:
        "<logs>/predict/{external}/labels/{task}.log",
    benchmark:
        "<benchmarks>/predict/{external}/labels/{task}.tsv"
    params:
        version=stage_version("evaluation/labels"),
        labels=untracked(EXTERNAL_LABELS.path),
        arguments=untracked(EXTERNAL_LABELS.arguments),
        rows=EXTERNAL_LABELS.rows,


rule external:
    input:
        labels="<results>/predict/{external}/labels/{task}.parquet",
        predictions="<results>/predict/{external}/{task}/folds.parquet",
        ledger="<results>/predict/{external}/ledger.parquet",
        cohort_ledger="<results>/ledger/ledger.parquet",
        evaluate=ROWS.external_tested,
    output:
        expand(
            "<results>/predict/{external}/{task}/table.{format}",
            format=["parquet", "csv", "md", "tex"],
            allow_missing=True,
        ),
        labeled="<results>/predict/{external}/{task}/labeled_predictions.csv",
        figures=directory("<results>/predict/{external}/{task}/figures"),
    log:
        "<logs>/external/{external}/{task}.log",
    benchmark:
        "<benchmarks>/external/{external}/{task}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(120),
    params:
        reference=CONFIG.report.reference,
        version=stage_version("report/external"),
        seed=CONFIG.seed,
        runs=ENCODERS.runs,
    script:
        "../workflow_scripts/external.py"


rule predict_index:
    input:
        ledger="<results>/predict/{external}/ledger.parquet",
        predictions=expand(
            "<results>/predict/{external}/{task}/folds.parquet",
            task=TASKS.names,
            allow_missing=True,
        ),
        evaluate=ROWS.external_tested,
        embeds=ROWS.external_embed_files,
    output:
        "<results>/predict/{external}/index.html",
    log:
        "<logs>/predict_index/{external}.log",
    benchmark:
        "<benchmarks>/predict_index/{external}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        version=stage_version("report/predict_index"),
        embeds=ROWS.external_embeds,
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
        runs=ENCODERS.runs,
    script:
        "../workflow_scripts/predict_index.py"


rule predict:
    input:
        ROWS.all_external_predictions,
