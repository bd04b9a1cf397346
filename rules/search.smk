# Slides to SIMILAR SLIDES: an index of the cohort's prototypes, and what is nearest to each query. docs/search.md


# One job of seconds: a new slide reruns the embeddings of all slides anyway.
rule search_index:
    input:
        embed="<results>/embed/{region_encoder}.parquet",
    output:
        "<results>/search/{region_encoder}/index.h5",
    log:
        "<logs>/search_index/{region_encoder}.log",
    benchmark:
        "<benchmarks>/search_index/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        section=SEARCHES.index_section,
        version=stage_version("search/search_index"),
        seed=CONFIG.seed,
    script:
        "../workflow_scripts/search_index.py"


# Queries of external cohorts and new files come through external_embed, in predict.smk.
rule search_slides:
    input:
        index="<results>/search/{region_encoder}/index.h5",
        ledger="<results>/ledger/ledger.parquet",
        query_ledgers=SEARCHES.query_ledgers,
        query_embeds=SEARCHES.query_embeds,
        labels=expand("<results>/labels/{task}.parquet", task=TASKS.names),
    output:
        similar="<results>/search/{region_encoder}/similar_slides.csv",
        matched="<results>/search/{region_encoder}/matched_regions.csv",
        page="<results>/search/{region_encoder}/similar_slides.html",
    log:
        "<logs>/search/{region_encoder}.log",
    benchmark:
        "<benchmarks>/search/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        section=CONFIG.search.ranking.model_dump(),
        version=stage_version("search/search"),
        queries=SEARCHES.queries,
        tasks=TASKS.names,
        slides=untracked(SEARCHES.slide_paths),
        tissue=str(PATHS.tissue_dir()),
        regions=str(PATHS.regions_dir()),
        state=str(PATHS.state_dir()),
    script:
        "../workflow_scripts/search.py"


rule search:
    input:
        SEARCHES.targets,
