# TOKENS to EMBEDDINGS


rule patch_encoder:
    input:
        weights=lambda wildcards: trackable(ENCODERS.patch_encoder_files(wildcards)),
        patches=ENCODERS.sampled_patches,
    output:
        "<results>/patch_encoder/weights.safetensors",
        history=(
            multiext("<results>/patch_encoder/history", ".parquet", ".csv")
            if ENCODERS.recipe
            else []
        ),
    log:
        "<logs>/patch_encoder/patch_encoder.log",
    benchmark:
        "<benchmarks>/patch_encoder/patch_encoder.tsv"
    # First of all that can run: weights that do not fit fail before slides are read.
    priority: 1
    conda:
        "../envs/slpd.yaml"
    threads: RESOURCES.patch_encoder_threads
    resources:
        gpu=RESOURCES.patch_encoder_gpus,
        mem_mb=per_attempt(forecast.PATCH_ENCODER_MB),
        runtime=per_attempt(RESOURCES.patch_encoder_minutes),
    params:
        section=ENCODERS.patch_encoder_section,
        file_states=lambda wildcards: file_states(
            ENCODERS.patch_encoder_files(wildcards)
        ),
        version=stage_version("pretraining/patch_encoder"),
        recipe=ENCODERS.patch_encoder_recipe,
        seed=CONFIG.seed,
        # Undeclared, so that it survives a failure and the training resumes from it.
        checkpoint=str(PATHS.patch_checkpoint()),
        tracker=untracked(CONFIG.tracker),
    script:
        "../workflow_scripts/patch_encoder.py"


# The patch encoders to compare with: the same rule for each that a row of evaluate.classifiers names.
use rule patch_encoder as compared_patch_encoder with:
    output:
        "<results>/compared/{encoder}/weights.safetensors",
    log:
        "<logs>/compared/{encoder}/patch_encoder.log",
    benchmark:
        "<benchmarks>/compared/{encoder}/patch_encoder.tsv"


rule pretrain:
    input:
        ledger="<results>/ledger/ledger.parquet",
        init_from=lambda wildcards: trackable(ENCODERS.init_from_path(wildcards)),
        folds=ENCODERS.folds_table,
    output:
        encoder="<results>/pretrain/{region_encoder}/encoder.safetensors",
        history=multiext(
            "<results>/pretrain/{region_encoder}/history", ".parquet", ".csv"
        ),
        prototypes="<results>/pretrain/{region_encoder}/prototypes.h5",
        monitored="<results>/pretrain/{region_encoder}/monitored.h5",
    log:
        "<logs>/pretrain/{region_encoder}.log",
    benchmark:
        "<benchmarks>/pretrain/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        # Nodes of a Slurm job; `gpu` is the total over them: docs/cluster.md.
        nodes=1,
        mem_mb=per_attempt(forecast.PRETRAIN_MB),
        runtime=per_attempt(RESOURCES.pretrain_minutes),
    params:
        section=ENCODERS.pretrain_section,
        file_states=lambda wildcards: file_states(ENCODERS.init_from_path(wildcards)),
        version=stage_version("pretraining/pretrain"),
        seed=CONFIG.seed,
        fold=ENCODERS.fold,
        tokens=str(PATHS.tokens_dir()),
        # Undeclared, so that it survives a failure and the run resumes from it.
        checkpoint=str(PATHS.checkpoint("{region_encoder}")),
        tracker=untracked(CONFIG.tracker),
    script:
        "../workflow_scripts/pretrain.py"


rule embed:
    input:
        ledger="<results>/ledger/ledger.parquet",
        cohort_ledger="<results>/ledger/ledger.parquet",
        encoder="<results>/pretrain/{region_encoder}/encoder.safetensors",
    output:
        "<results>/embed/{region_encoder}.parquet",
    log:
        "<logs>/embed/{region_encoder}.log",
    benchmark:
        "<benchmarks>/embed/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        # One slide at a time.
        mem_mb=per_attempt(4000),
        runtime=per_attempt(120),
    params:
        section=CONFIG.embed.model_dump(),
        version=stage_version("pretraining/embed"),
        tokens=str(PATHS.tokens_dir()),
    script:
        "../workflow_scripts/embed.py"


rule gallery:
    input:
        embed="<results>/embed/{region_encoder}.parquet",
        prototypes="<results>/pretrain/{region_encoder}/prototypes.h5",
    output:
        report(
            "<results>/gallery/{region_encoder}.png",
            caption="captions/gallery.rst",
            category="Pretraining",
            labels={"figure": "Prototypes of {region_encoder}"},
        ),
    log:
        "<logs>/gallery/{region_encoder}.log",
    benchmark:
        "<benchmarks>/gallery/{region_encoder}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        **SLIDES.shown_names,
        section=CONFIG.gallery.model_dump(),
        version=stage_version("pretraining/gallery"),
        slides=untracked(SLIDES.cohort_paths),
        regions=str(PATHS.regions_dir()),
        state=str(PATHS.state_dir()),
    script:
        "../workflow_scripts/gallery.py"


rule pretraining:
    input:
        expand(rules.embed.output, region_encoder=ENCODERS.names),
        expand(rules.pretrain.output, region_encoder=ENCODERS.names),
        galleries=ENCODERS.galleries,
