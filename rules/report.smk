# NUMBERS to the page


rule report:
    input:
        ledger="<results>/ledger/ledger.parquet",
        labels=expand("<results>/labels/{task}.parquet", task=TASKS.names),
        folds=expand("<results>/folds/{task}/folds.parquet", task=TASKS.names),
        remarks=expand("<results>/folds/{task}/remarks.parquet", task=TASKS.names),
        evaluate=ROWS.all_predictions(),
        history=expand(
            "<results>/pretrain/{region_encoder}/history.parquet",
            region_encoder=ENCODERS.reported,
        ),
        monitored=expand(
            "<results>/pretrain/{region_encoder}/monitored.h5",
            region_encoder=ENCODERS.reported,
        ),
        embed=expand(
            "<results>/embed/{region_encoder}.parquet",
            region_encoder=ENCODERS.reported,
        ),
        patch_history=ENCODERS.patch_history,
        galleries=ENCODERS.galleries,
        heatmaps=ROWS.all_heatmaps(),
        protocols=ROWS.all_protocols(),
        external=ROWS.external_tables,
    output:
        report(
            "<results>/report/index.html",
            caption="captions/page.rst",
            category="Results",
            labels={"figure": "The whole report, one page"},
        ),
        "<results>/report/verdicts.csv",
        "<results>/report/methods.md",
        "<results>/report/methods.bib",
        ["<results>/report/pseudonyms.csv"] if CONFIG.report.pseudonyms else [],
        [
            report(
                f"<results>/report/{task}/table.csv",
                caption="captions/table.rst",
                category="Results",
                labels={"figure": f"Scores ({task})"},
            )
            for task in TASKS.names
        ],
        expand(
            "<results>/report/{task}/table.{format}",
            task=TASKS.names,
            format=["parquet", "md", "tex"],
        ),
        expand("<results>/report/{task}/predictions.csv", task=TASKS.names),
        expand("<results>/report/{task}/slides.html", task=TASKS.names),
        expand(
            "<results>/report/{task}/few_shot.{format}",
            task=ROWS.tasks_of("few_shot"),
            format=["parquet", "csv", "md", "tex"],
        ),
        expand(
            "<results>/report/{task}/retrieval.{format}",
            task=ROWS.tasks_of("retrieval"),
            format=["parquet", "csv", "md", "tex"],
        ),
        [
            report(
                f"<results>/report/{figure}.png",
                caption=f"captions/{figure.rpartition('/')[2]}.rst",
                category=category,
                labels={"figure": title},
            )
            for figure, (category, title) in ROWS.figures.items()
        ],
    log:
        "<logs>/report/report.log",
    benchmark:
        "<benchmarks>/report/report.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        section=CONFIG.report.page.model_dump(),
        version=stage_version("report/report"),
        seed=CONFIG.seed,
        cohort=CONFIG.cohort,
        patch_encoder=CONFIG.patch_encoder.cohort_encoder.source,
        methods=CONFIG.methods.model_dump(),
        runs=ENCODERS.runs,
        tasks=TASKS.names,
        overlays=str(PATHS.regions_dir()),
        outlines=str(PATHS.tissue_dir()),
        benchmarks=str(PATHS.benchmarks_dir()),
    script:
        "../workflow_scripts/report.py"


rule tables:
    input:
        ROWS.joined_tables,
    output:
        expand(
            "<results>/tables/{table}.{format}",
            table=CONFIG.report.tables,
            format=["csv", "md", "tex", "html"],
        ),
    log:
        "<logs>/tables/tables.log",
    benchmark:
        "<benchmarks>/tables/tables.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.report.model_dump()["tables"],
        version=stage_version("report/tables"),
        paths=ROWS.result_tables,
        out=str(PATHS.tables_dir()),
    script:
        "../workflow_scripts/tables.py"


rule evaluation:
    input:
        rules.report.output,
