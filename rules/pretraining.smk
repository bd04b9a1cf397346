# TOKENS to EMBEDDINGS


rule pretrain:
    input:
        ledger=f"{RESULTS}/ledger/ledger.parquet",
        init_from=run_begins_with,
        folds=run_folds,
    output:
        encoder=f"{RESULTS}/pretrain/{{run}}/encoder.safetensors",
        history=multiext(f"{RESULTS}/pretrain/{{run}}/history", ".parquet", ".csv"),
        prototypes=f"{RESULTS}/pretrain/{{run}}/prototypes.h5",
    log:
        f"{RESULTS}/logs/pretrain/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/pretrain/{{run}}.tsv"
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        # Of a Slurm job, `gpu` and `tasks` in all: docs/cluster.md.
        nodes=1,
        # The tokens stay in memory: 200 KB a region of 16 x 16, so 12.4 GB for the 62,852 of TCGA-NSCLC; the rest is
        # for PyTorch. Of a larger cohort they are mapped from a file in $TMPDIR; with more memory
        # (--set-resources pretrain:mem_mb=...) they need not be.
        mem_mb=growing(20000),
        runtime=growing(run_minutes),
    params:
        section=run_section,
        unwatched=unwatched_beginning,
        version=stage_version("pretraining/pretrain"),
        seed=CONFIG.seed,
        fold=run_fold,
        tokens=f"{RESULTS}/tokens",
        # Undeclared on purpose: it survives a failure, and the run resumes from it.
        checkpoint=f"{RESULTS}/pretrain/{{run}}/checkpoint.pt",
    script:
        "../workflow_scripts/pretrain.py"


rule embed:
    input:
        ledger=f"{RESULTS}/ledger/ledger.parquet",
        cohort_ledger=f"{RESULTS}/ledger/ledger.parquet",
        encoder=f"{RESULTS}/pretrain/{{run}}/encoder.safetensors",
    output:
        f"{RESULTS}/embed/{{run}}.parquet",
    log:
        f"{RESULTS}/logs/embed/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/embed/{{run}}.tsv"
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        # One slide at a time.
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        section=CONFIG.embed.model_dump(),
        version=stage_version("pretraining/embed"),
        tokens=f"{RESULTS}/tokens",
    script:
        "../workflow_scripts/embed.py"


rule gallery:
    input:
        sheet=f"{RESULTS}/sheet/slides.parquet",
        embed=f"{RESULTS}/embed/{{run}}.parquet",
        prototypes=f"{RESULTS}/pretrain/{{run}}/prototypes.h5",
    output:
        report(
            f"{RESULTS}/gallery/{{run}}.png",
            caption="captions/gallery.rst",
            category="Pretraining",
            labels={"what": "Prototypes of {run}"},
        ),
    log:
        f"{RESULTS}/logs/gallery/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/gallery/{{run}}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=growing(30),
    params:
        section=CONFIG.gallery.model_dump(),
        version=stage_version("pretraining/gallery"),
        slides=where_slides_are,
        regions=f"{RESULTS}/regions",
        state=STATE,
    script:
        "../workflow_scripts/gallery.py"


rule pretraining:
    input:
        expand(rules.embed.output, run=sum(ENCODERS.values(), [])),
        expand(rules.pretrain.output, run=sum(ENCODERS.values(), [])),
        galleries=[
            f"{RESULTS}/gallery/{run}.png"
            for name, run in zip(RUNS, SHOWN)
            if CONFIG.pretrain.run(name).uses_prototypes
        ],
