# NEW SLIDES to PREDICTIONS: the stages up to `embed` on new slides, then the cohort's classifiers


use rule sheet as new_sheet with:
    output:
        "<results>/predict/slides.parquet",
    log:
        "<logs>/predict/sheet.log",
    benchmark:
        "<benchmarks>/predict/sheet.tsv"
    params:
        version=stage_version("slides/sheet"),
        sheet=untracked(CONFIG.predict.sheet),
        columns=untracked(CONFIG.sheet.columns),
        columns_must_exist=False,
        rows=sheet.sheet_fingerprint(NEW_SHEET),


use rule ledger as new_ledger with:
    input:
        sheet="<results>/predict/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.new),
        encoded=expand("<results>/encoded/{slide}.h5", slide=SLIDES.new),
        # Finds new slides that are the cohort's under other names.
        cohort=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.cohort),
    output:
        "<results>/predict/ledger.parquet",
    log:
        "<logs>/predict/ledger.log",
    benchmark:
        "<benchmarks>/predict/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        new=True,


use rule compared_ledger as new_compared_ledger with:
    input:
        sheet="<results>/predict/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.new),
        encoded=expand(
            "<results>/compared/{encoder}/encoded/{slide}.h5",
            slide=SLIDES.new,
            allow_missing=True,
        ),
    output:
        "<results>/predict/compared/{encoder}/ledger.parquet",
    log:
        "<logs>/predict/compared/{encoder}/ledger.log",
    benchmark:
        "<benchmarks>/predict/compared/{encoder}/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        new=True,


use rule embed as new_embed with:
    input:
        ledger="<results>/predict/ledger.parquet",
        cohort_ledger="<results>/ledger/ledger.parquet",
        encoder="<results>/pretrain/{region_encoder}/encoder.safetensors",
    output:
        "<results>/predict/embed/{region_encoder}.parquet",
    log:
        "<logs>/predict/embed/{region_encoder}.log",
    benchmark:
        "<benchmarks>/predict/embed/{region_encoder}.tsv"


rule predict:
    input:
        ROWS.prediction_inputs,
        ledger="<results>/predict/ledger.parquet",
    output:
        predictions=expand("<results>/predict/{task}/predictions.csv", task=TASKS.names),
        heatmaps=directory("<results>/predict/heatmaps"),
    log:
        "<logs>/predict/predict.log",
    benchmark:
        "<benchmarks>/predict/predict.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(120),
    params:
        version=stage_version("evaluation/predict"),
        rows=ROWS.prediction_rows(),
        tasks=TASKS.names,
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/predict.py"
