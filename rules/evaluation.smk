# EMBEDDINGS to NUMBERS


rule folds:
    input:
        ledger=f"{RESULTS}/ledger/ledger.parquet",
        sheet=f"{RESULTS}/sheet/slides.parquet",
        splits=watched(map(str, CONFIG.folds.files)),
    output:
        folds=f"{RESULTS}/folds/folds.parquet",
        remarks=multiext(f"{RESULTS}/folds/remarks", ".parquet", ".csv"),
    log:
        f"{RESULTS}/logs/folds/folds.log",
    benchmark:
        f"{RESULTS}/benchmarks/folds/folds.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.folds.model_dump(),
        unwatched=unwatched(map(str, CONFIG.folds.files)),
        version=stage_version("evaluation/folds"),
        seed=CONFIG.seed,
    script:
        "../workflow_scripts/folds.py"


rule evaluate:
    input:
        folds=f"{RESULTS}/folds/folds.parquet",
        embed=embed_table,
        # One file that stands for all tokens, and says which.
        ledger=ledger_of_tokens,
    output:
        predictions=f"{RESULTS}/evaluate/{{features}}/{{classifier}}/fold{{fold}}.parquet",
        model=f"{RESULTS}/evaluate/{{features}}/{{classifier}}/fold{{fold}}.safetensors",
    log:
        f"{RESULTS}/logs/evaluate/{{features}}/{{classifier}}/fold{{fold}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/evaluate/{{features}}/{{classifier}}/fold{{fold}}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(evaluation_minutes),
    params:
        section=CONFIG.evaluate.training.model_dump(),
        version=stage_version("evaluation/evaluate"),
        seed=CONFIG.seed,
        tokens=tokens_folder,
    script:
        "../workflow_scripts/evaluate.py"


rule heatmaps:
    input:
        folds=f"{RESULTS}/folds/folds.parquet",
        models=lambda wildcards: models_of(wildcards.features, wildcards.classifier),
        embeds=embed_of_each_fold,
    output:
        report(
            f"{RESULTS}/heatmaps/{{features}}/{{classifier}}.jpg",
            caption="captions/heatmaps.rst",
            category="Attention",
            labels={"run": "{features}", "classifier": "{classifier}"},
        ),
    log:
        f"{RESULTS}/logs/heatmaps/{{features}}/{{classifier}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/heatmaps/{{features}}/{{classifier}}.tsv"
    wildcard_constraints:
        features=one_of(RUNS),
        classifier=one_of(sections.ATTENTION),
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
    params:
        section=CONFIG.heatmaps.model_dump(),
        version=stage_version("evaluation/heatmaps"),
        seed=CONFIG.seed,
        tissue=f"{RESULTS}/tissue",
        regions=f"{RESULTS}/regions",
    script:
        "../workflow_scripts/heatmaps.py"


rule report:
    input:
        ledger=f"{RESULTS}/ledger/ledger.parquet",
        folds=f"{RESULTS}/folds/folds.parquet",
        remarks=f"{RESULTS}/folds/remarks.parquet",
        evaluate=each_fold_of_each_row(),
        history=expand(f"{RESULTS}/pretrain/{{run}}/history.parquet", run=SHOWN),
        embed=expand(f"{RESULTS}/embed/{{run}}.parquet", run=SHOWN),
        patch_history=patch_history,
        galleries=rules.pretraining.input.galleries,
        heatmaps=[
            f"{RESULTS}/heatmaps/{features}/{classifier}.jpg"
            for features, classifier in CONFIG.attending
        ],
    output:
        report(
            f"{RESULTS}/report/index.html",
            caption="captions/page.rst",
            category="Results",
            labels={"what": "The whole report, one page"},
        ),
        report(
            f"{RESULTS}/report/table.csv",
            caption="captions/table.rst",
            category="Results",
            labels={"what": "Scores"},
        ),
        expand(f"{RESULTS}/report/table.{{format}}", format=["parquet", "md", "tex"]),
        [
            report(
                f"{RESULTS}/report/{figure}.png",
                caption=f"captions/{figure}.rst",
                category=category,
                labels={"what": what},
            )
            for figure, (category, what) in FIGURES.items()
        ],
    log:
        f"{RESULTS}/logs/report/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/report/report.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=growing(60),
    params:
        section=CONFIG.report.page.model_dump(),
        version=stage_version("report/report"),
        seed=CONFIG.seed,
        cohort=CONFIG.cohort,
        runs=RUNS,
        overlays=f"{RESULTS}/regions",
        benchmarks=f"{RESULTS}/benchmarks",
    script:
        "../workflow_scripts/report.py"


rule tables:
    input:
        tables_of_cohorts,
    output:
        expand(
            f"{RESULTS}/tables/{{table}}.{{format}}",
            table=CONFIG.report.tables,
            format=["csv", "md", "tex", "html"],
        ),
    log:
        f"{RESULTS}/logs/tables/tables.log",
    benchmark:
        f"{RESULTS}/benchmarks/tables/tables.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.report.model_dump()["tables"],
        version=stage_version("report/tables"),
        paths=TABLES,
        out=f"{RESULTS}/tables",
    script:
        "../workflow_scripts/tables.py"


rule evaluation:
    input:
        rules.report.output,
