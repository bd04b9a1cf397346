# EMBEDDINGS to NUMBERS


rule labels:
    input:
        sheet="<results>/sheet/slides.parquet",
    output:
        "<results>/labels/{task}.parquet",
    log:
        "<logs>/labels/{task}.log",
    benchmark:
        "<benchmarks>/labels/{task}.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        version=stage_version("evaluation/labels"),
        labels=untracked(TASKS.path),
        arguments=untracked(TASKS.arguments),
        rows=TASKS.rows,
    script:
        "../workflow_scripts/labels.py"


rule folds:
    input:
        ledger="<results>/ledger/ledger.parquet",
        sheet="<results>/sheet/slides.parquet",
        labels="<results>/labels/{task}.parquet",
        splits=trackable(map(str, CONFIG.folds.files)),
    output:
        folds="<results>/folds/{task}/folds.parquet",
        remarks=multiext("<results>/folds/{task}/remarks", ".parquet", ".csv"),
    log:
        "<logs>/folds/{task}.log",
    benchmark:
        "<benchmarks>/folds/{task}.tsv"
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
        folds="<results>/folds/{task}/folds.parquet",
        embed=ROWS.embed_table,
        # Stands for all tokens.
        ledger=ROWS.tokens_ledger,
    output:
        predictions=[
            "<results>/evaluate/{task}/{features}/{classifier}/fold{fold}.parquet"
        ],
        models=[
            "<results>/evaluate/{task}/{features}/{classifier}/fold{fold}.safetensors"
        ],
    log:
        "<logs>/evaluate/{task}/{features}/{classifier}/fold{fold}.log",
    benchmark:
        "<benchmarks>/evaluate/{task}/{features}/{classifier}/fold{fold}.tsv"
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
        folds=untracked(ROWS.evaluated_folds),
    script:
        "../workflow_scripts/evaluate.py"


# All folds of a row that has none yet, in one job, since the start of a process takes as long as many a fold.
use rule evaluate as evaluate_folds with:
    output:
        predictions=expand(
            "<results>/evaluate/{{task}}/{{features}}/{{classifier}}/fold{fold}.parquet",
            fold=ROWS.folds,
        ),
        models=expand(
            "<results>/evaluate/{{task}}/{{features}}/{{classifier}}/fold{fold}.safetensors",
            fold=ROWS.folds,
        ),
    log:
        "<logs>/evaluate/{task}/{features}/{classifier}/folds.log",
    benchmark:
        "<benchmarks>/evaluate/{task}/{features}/{classifier}/folds.tsv"
    wildcard_constraints:
        task=row_pattern(
            select_joined_rows(
                ROWS,
                workflow.resource_settings.overwrite_resources,
                workflow.global_resources,
                planning=workflow.is_main_process,
            )
        ),


ruleorder: evaluate_folds > evaluate


rule few_shot:
    input:
        folds="<results>/folds/{task}/folds.parquet",
        embeds=ROWS.embed_tables,
        # Stands for all tokens.
        ledger=ROWS.tokens_ledger,
    output:
        "<results>/few_shot/{task}/{features}.parquet",
    log:
        "<logs>/few_shot/{task}/{features}.log",
    benchmark:
        "<benchmarks>/few_shot/{task}/{features}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(forecast.EVALUATE_MB),
        runtime=per_attempt(60),
    params:
        section=CONFIG.evaluate.few_shot.model_dump(),
        version=stage_version("evaluation/few_shot"),
        seed=CONFIG.seed,
        tokens=ROWS.tokens_dir,
    script:
        "../workflow_scripts/few_shot.py"


rule retrieval:
    input:
        folds="<results>/folds/{task}/folds.parquet",
        embeds=ROWS.embed_tables,
        # Stands for all tokens.
        ledger=ROWS.tokens_ledger,
    output:
        "<results>/retrieval/{task}/{features}.parquet",
    log:
        "<logs>/retrieval/{task}/{features}.log",
    benchmark:
        "<benchmarks>/retrieval/{task}/{features}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        section=ROWS.retrieval_section,
        version=stage_version("evaluation/retrieval"),
        seed=CONFIG.seed,
        tokens=ROWS.tokens_dir,
    script:
        "../workflow_scripts/retrieval.py"


rule attention:
    input:
        folds="<results>/folds/{task}/folds.parquet",
        models=ROWS.models,
        embeds=ROWS.embed_tables,
    output:
        "<results>/attention/{task}/{features}/{classifier}.parquet",
    log:
        "<logs>/attention/{task}/{features}/{classifier}.log",
    benchmark:
        "<benchmarks>/attention/{task}/{features}/{classifier}.tsv"
    wildcard_constraints:
        features=name_pattern(ENCODERS.runs),
        classifier=name_pattern(sections.ATTENTION),
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        version=stage_version("evaluation/attention"),
    script:
        "../workflow_scripts/attention.py"


rule heatmaps:
    input:
        folds="<results>/folds/{task}/folds.parquet",
        attention="<results>/attention/{task}/{features}/{classifier}.parquet",
        predictions=ROWS.tested,
    output:
        report(
            "<results>/heatmaps/{task}/{features}/{classifier}.jpg",
            caption="captions/heatmaps.rst",
            category="Attention",
            labels={
                "task": "{task}",
                "run": "{features}",
                "classifier": "{classifier}",
            },
        ),
    log:
        "<logs>/heatmaps/{task}/{features}/{classifier}.log",
    benchmark:
        "<benchmarks>/heatmaps/{task}/{features}/{classifier}.tsv"
    wildcard_constraints:
        features=name_pattern(ENCODERS.runs),
        classifier=name_pattern(sections.ATTENTION),
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(3000),
        runtime=per_attempt(60),
    params:
        **SLIDES.shown_names,
        section=CONFIG.heatmaps.model_dump(),
        version=stage_version("evaluation/heatmaps"),
        seed=CONFIG.seed,
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/heatmaps.py"
