# EMBEDDINGS to NUMBERS


rule folds:
    input:
        ledger="<results>/ledger/ledger.parquet",
        sheet="<results>/sheet/slides.parquet",
        splits=trackable(map(str, CONFIG.folds.files)),
    output:
        folds="<results>/folds/folds.parquet",
        remarks=multiext("<results>/folds/remarks", ".parquet", ".csv"),
    log:
        "<logs>/folds/folds.log",
    benchmark:
        "<benchmarks>/folds/folds.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.folds.model_dump(),
        file_states=file_states(map(str, CONFIG.folds.files)),
        version=stage_version("evaluation/folds"),
        seed=CONFIG.seed,
    script:
        "../workflow_scripts/folds.py"


rule evaluate:
    input:
        folds="<results>/folds/folds.parquet",
        embed=ROWS.embed_table,
        # Stands for all tokens.
        ledger=ROWS.tokens_ledger,
    output:
        predictions="<results>/evaluate/{features}/{classifier}/fold{fold}.parquet",
        model="<results>/evaluate/{features}/{classifier}/fold{fold}.safetensors",
    log:
        "<logs>/evaluate/{features}/{classifier}/fold{fold}.log",
    benchmark:
        "<benchmarks>/evaluate/{features}/{classifier}/fold{fold}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(forecast.EVALUATE_MB),
        runtime=per_attempt(RESOURCES.evaluate_minutes),
    params:
        section=CONFIG.evaluate.training.model_dump(),
        version=stage_version("evaluation/evaluate"),
        seed=CONFIG.seed,
        tokens=ROWS.tokens_dir,
    script:
        "../workflow_scripts/evaluate.py"


rule heatmaps:
    input:
        folds="<results>/folds/folds.parquet",
        models=ROWS.models,
        embeds=ROWS.embed_tables,
    output:
        report(
            "<results>/heatmaps/{features}/{classifier}.jpg",
            caption="captions/heatmaps.rst",
            category="Attention",
            labels={"run": "{features}", "classifier": "{classifier}"},
        ),
    log:
        "<logs>/heatmaps/{features}/{classifier}.log",
    benchmark:
        "<benchmarks>/heatmaps/{features}/{classifier}.tsv"
    wildcard_constraints:
        features=name_pattern(ENCODERS.runs),
        classifier=name_pattern(sections.ATTENTION),
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        section=CONFIG.heatmaps.model_dump(),
        version=stage_version("evaluation/heatmaps"),
        seed=CONFIG.seed,
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/heatmaps.py"
