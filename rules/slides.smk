# PIXELS to TOKENS


rule sheet:
    output:
        "<results>/sheet/slides.parquet",
    log:
        "<logs>/sheet/sheet.log",
    benchmark:
        "<benchmarks>/sheet/sheet.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        version=stage_version("slides/sheet"),
        sheet=untracked(CONFIG.sheet.path),
        columns=untracked(CONFIG.sheet.columns),
        external=False,
        rows=sheet.sheet_fingerprint(SHEET),
    script:
        "../workflow_scripts/sheet.py"


TISSUE_MINUTES = forecast.TISSUE_MINUTES[CONFIG.tissue.method]


rule tissue:
    output:
        geojson="<results>/tissue/{slide}.geojson",
        overlay="<results>/tissue/{slide}.png",
    log:
        "<logs>/tissue/{slide}.log",
    benchmark:
        "<benchmarks>/tissue/{slide}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(forecast.TISSUE_MB[CONFIG.tissue.method]),
        runtime=per_attempt(
            RESOURCES.slide_minutes(TISSUE_MINUTES, per_gb=TISSUE_MINUTES)
        ),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.tissue.segmentation.model_dump(),
        version=stage_version("slides/tissue"),
        mpp=SLIDES.mpp,
        outline=SLIDES.outline_section,
        outline_path=untracked(SLIDES.outline_path),
        outline_file=SLIDES.outline_state,
        slide=untracked(SLIDES.path),
        slide_file=SLIDES.state,
        state=str(PATHS.state_dir()),
    script:
        "../workflow_scripts/tissue.py"


MEASURES_FOCUS = CONFIG.regions.min_focus is not None


rule regions:
    input:
        tissue="<results>/tissue/{slide}.geojson",
        outlined="<results>/tissue/{slide}.png",
        coordinates=existing(IMPORTS.coordinates),
    output:
        regions="<results>/regions/{slide}.h5",
        overlay="<results>/regions/{slide}.png",
    log:
        "<logs>/regions/{slide}.log",
    benchmark:
        "<benchmarks>/regions/{slide}.tsv"
    retries: READ_RETRIES if MEASURES_FOCUS else 0
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(1500 if MEASURES_FOCUS else 1000),
        runtime=per_attempt(
            RESOURCES.slide_minutes(3, per_gb=3) if MEASURES_FOCUS else 3
        ),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.regions.selection.model_dump(),
        version=stage_version("slides/regions"),
        imported=untracked(IMPORTS.has_coordinates),
        coordinates=untracked(IMPORTS.coordinates),
        # Read where focus is measured. A slide that changes has its tissue rebuilt, which is an input.
        slide=untracked(SLIDES.path if MEASURES_FOCUS else None),
        state=untracked(str(PATHS.state_dir())),
    script:
        "../workflow_scripts/regions.py"


rule patches:
    input:
        tissue="<results>/tissue/{slide}.geojson",
        regions="<results>/regions/{slide}.h5",
    output:
        temp("<results>/patches/{slide}.h5"),
    log:
        "<logs>/patches/{slide}.log",
    benchmark:
        "<benchmarks>/patches/{slide}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(1500),
        runtime=per_attempt(RESOURCES.slide_minutes(3, per_gb=3)),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.patches.model_dump(),
        version=stage_version("slides/patches"),
        patch_px=CONFIG.patch_encoder.patch_px,
        jpeg_scaled_decoding=CONFIG.tokens.jpeg_scaled_decoding,
        seed=CONFIG.seed,
        slide=untracked(SLIDES.path),
        slide_file=SLIDES.state,
        state=str(PATHS.state_dir()),
    script:
        "../workflow_scripts/patches.py"


rule tokens:
    input:
        regions=["<results>/regions/{slide}.h5"],
        weights="<results>/patch_encoder/weights.safetensors",
        # Not read. Without it, weights from before the encoder was to be trained would count as up to date.
        history=ENCODERS.patch_history,
        features=existing(IMPORTS.features),
    output:
        tokens=["<results>/tokens/{slide}.h5"],
        encoded=["<results>/encoded/{slide}.h5"],
    log:
        "<logs>/tokens/{slide}.log",
    benchmark:
        "<benchmarks>/tokens/{slide}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    threads: encoding_threads(workflow.global_resources)
    resources:
        gpu=1,
        mem_mb=RESOURCES.encoding_mb,
        runtime=per_attempt(RESOURCES.slide_minutes(10, per_gb=20)),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.tokens.encoding.model_dump(),
        version=stage_version("slides/tokens"),
        cache_dir=untracked(CONFIG.tokens.cache_dir),
        kept_dir=untracked(None),
        slide_paths=untracked(SLIDES.paths),
        features_paths=untracked(IMPORTS.features_of_one),
        slide_file=SLIDES.state,
        state=str(PATHS.state_dir()),
    script:
        "../workflow_scripts/tokens.py"


rule ledger:
    input:
        sheet="<results>/sheet/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.cohort),
        encoded=expand("<results>/encoded/{slide}.h5", slide=SLIDES.cohort),
    output:
        "<results>/ledger/ledger.parquet",
    log:
        "<logs>/ledger/ledger.log",
    benchmark:
        "<benchmarks>/ledger/ledger.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        unmatched=untracked(SLIDES.unmatched_outlines),
    script:
        "../workflow_scripts/ledger.py"


# Beside the ledger, not after it: the page is there too where the ledger stops, as no slide can be used.
rule slide_index:
    input:
        sheet="<results>/sheet/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.cohort),
        encoded=expand("<results>/encoded/{slide}.h5", slide=SLIDES.cohort),
    output:
        "<results>/slides/index.html",
    log:
        "<logs>/slide_index/slide_index.log",
    benchmark:
        "<benchmarks>/slide_index/slide_index.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        version=stage_version("slides/slide_index"),
        overlays=str(PATHS.regions_dir()),
    script:
        "../workflow_scripts/slide_index.py"


# The patch encoders to compare with: tokens and ledger of each that a row of evaluate.classifiers names.


use rule tokens as compared_tokens with:
    input:
        regions=["<results>/regions/{slide}.h5"],
        weights="<results>/compared/{encoder}/weights.safetensors",
        features=existing(IMPORTS.features),
    output:
        tokens=["<results>/compared/{encoder}/tokens/{slide}.h5"],
        encoded=["<results>/compared/{encoder}/encoded/{slide}.h5"],
    log:
        "<logs>/compared/{encoder}/tokens/{slide}.log",
    benchmark:
        "<benchmarks>/compared/{encoder}/tokens/{slide}.tsv"


use rule ledger as compared_ledger with:
    input:
        sheet="<results>/sheet/slides.parquet",
        tissue=expand("<results>/tissue/{slide}.geojson", slide=SLIDES.cohort),
        encoded=expand(
            "<results>/compared/{encoder}/encoded/{slide}.h5",
            slide=SLIDES.cohort,
            allow_missing=True,
        ),
    output:
        "<results>/compared/{encoder}/ledger.parquet",
    log:
        "<logs>/compared/{encoder}/ledger.log",
    benchmark:
        "<benchmarks>/compared/{encoder}/ledger.tsv"


# The same for several slides at a time: a rule per job, since the slides of a job are no wildcards.
for job in JOINED_SLIDES.jobs:

    workflow.ruleorder(job.rule, job.rule_of_one)

    rule:
        name:
            job.rule
        input:
            regions=expand("<results>/regions/{slide}.h5", slide=job.slides),
            weights=str(PATHS.patch_encoder(encoder=job.encoder)),
            history=[] if job.encoder else ENCODERS.patch_history,
            features=existing(job.each(IMPORTS.features)),
        output:
            tokens=job.files(PATHS.tokens),
            encoded=job.files(PATHS.encoded),
        log:
            f"<logs>/{job.folder}tokens/joined/{job.number}.log",
        benchmark:
            f"<benchmarks>/{job.folder}tokens/joined/{job.number}.tsv"
        retries: READ_RETRIES
        conda:
            "../envs/slpd.yaml"
        threads: encoding_threads(workflow.global_resources)
        resources:
            gpu=1,
            mem_mb=RESOURCES.encoding_mb,
            runtime=per_attempt(job.total(RESOURCES.slide_minutes(10, per_gb=20))),
            last_attempt=last_attempt,
            wait_s=wait_before_attempt,
        params:
            section=CONFIG.tokens.encoding.model_dump(),
            version=stage_version("slides/tokens"),
            cache_dir=untracked(CONFIG.tokens.cache_dir),
            kept_dir=untracked(job.kept_dir),
            slide_paths=untracked(job.each(SLIDES.path)),
            features_paths=untracked(job.each(IMPORTS.features)),
            slide_file=job.each(SLIDES.state),
            state=str(PATHS.state_dir()),
        script:
            "../workflow_scripts/tokens.py"


rule slides:
    input:
        rules.ledger.output,
        rules.slide_index.output,
        expand(rules.regions.output.overlay, slide=SLIDES.cohort),
