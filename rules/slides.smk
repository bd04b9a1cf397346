# PIXELS to TOKENS


rule sheet:
    output:
        f"{RESULTS}/sheet/slides.parquet",
    log:
        f"{RESULTS}/logs/sheet/sheet.log",
    benchmark:
        f"{RESULTS}/benchmarks/sheet/sheet.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        version=stage_version("slides/sheet"),
        sheet=where_sheet_is,
        rows=sheet.sheet_fingerprint(SHEET),
        labelled=True,
    script:
        "../workflow_scripts/sheet.py"


rule tissue:
    output:
        geojson=f"{RESULTS}/tissue/{{slide}}.geojson",
        overlay=f"{RESULTS}/tissue/{{slide}}.png",
    log:
        f"{RESULTS}/logs/tissue/{{slide}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tissue/{{slide}}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(slide_minutes(3, per_gb=3)),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.tissue.segmentation.model_dump(),
        version=stage_version("slides/tissue"),
        mpp=slide_mpp,
        outline=outline_section,
        outline_path=where_outline_is,
        outline_file=outline_file,
        slide=where_slide_is,
        slide_file=slide_file,
        state=STATE,
    script:
        "../workflow_scripts/tissue.py"


rule regions:
    input:
        tissue=f"{RESULTS}/tissue/{{slide}}.geojson",
        outlined=f"{RESULTS}/tissue/{{slide}}.png",
    output:
        regions=f"{RESULTS}/regions/{{slide}}.h5",
        overlay=f"{RESULTS}/regions/{{slide}}.png",
    log:
        f"{RESULTS}/logs/regions/{{slide}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/regions/{{slide}}.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(1000),
        runtime=growing(3),
    params:
        section=CONFIG.regions.model_dump(),
        version=stage_version("slides/regions"),
    script:
        "../workflow_scripts/regions.py"


rule patches:
    input:
        tissue=f"{RESULTS}/tissue/{{slide}}.geojson",
        regions=f"{RESULTS}/regions/{{slide}}.h5",
    output:
        temp(f"{RESULTS}/patches/{{slide}}.h5"),
    log:
        f"{RESULTS}/logs/patches/{{slide}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/patches/{{slide}}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(1500),
        runtime=growing(slide_minutes(3, per_gb=3)),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.patches.model_dump(),
        version=stage_version("slides/patches"),
        patch_px=CONFIG.patch_encoder.patch_px,
        shrink_jpeg=CONFIG.tokens.shrink_jpeg,
        seed=CONFIG.seed,
        slide=where_slide_is,
        slide_file=slide_file,
        state=STATE,
    script:
        "../workflow_scripts/patches.py"


rule patch_encoder:
    input:
        weights=watched_weights,
        patches=sampled_patches,
    output:
        f"{RESULTS}/patch_encoder/weights.safetensors",
        history=(
            multiext(f"{RESULTS}/patch_encoder/history", ".parquet", ".csv")
            if RECIPE
            else []
        ),
    log:
        f"{RESULTS}/logs/patch_encoder/patch_encoder.log",
    benchmark:
        f"{RESULTS}/benchmarks/patch_encoder/patch_encoder.tsv"
    # First of all that can run: weights that do not fit are named before slides are read.
    priority: 1
    conda:
        "../envs/slpd.yaml"
    threads: encoder_threads
    resources:
        gpu=encoder_gpus,
        mem_mb=growing(8000),
        runtime=growing(encoder_minutes),
    params:
        section=encoder_section,
        unwatched=unwatched_weights,
        version=stage_version("pretraining/patch_encoder"),
        recipe=encoder_recipe,
        seed=CONFIG.seed,
        # Undeclared on purpose: it survives a failure, and the training resumes from it.
        checkpoint=f"{RESULTS}/patch_encoder/checkpoint.pt",
    script:
        "../workflow_scripts/patch_encoder.py"


rule tokens:
    input:
        regions=f"{RESULTS}/regions/{{slide}}.h5",
        weights=f"{RESULTS}/patch_encoder/weights.safetensors",
        # Not read: Snakemake takes weights for up to date that were there before the encoder was to be trained.
        history=patch_history,
    output:
        tokens=f"{RESULTS}/tokens/{{slide}}.h5",
        encoded=f"{RESULTS}/encoded/{{slide}}.h5",
    log:
        f"{RESULTS}/logs/tokens/{{slide}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tokens/{{slide}}.tsv"
    retries: READ_RETRIES
    conda:
        "../envs/slpd.yaml"
    resources:
        gpu=1,
        mem_mb=growing(encoding_mb),
        runtime=growing(slide_minutes(10, per_gb=20)),
        last_attempt=last_attempt,
        wait_s=wait_before_attempt,
    params:
        section=CONFIG.tokens.encoding.model_dump(),
        version=stage_version("slides/tokens"),
        cache=where_cache_is,
        slide=where_slide_is,
        slide_file=slide_file,
        state=STATE,
    script:
        "../workflow_scripts/tokens.py"


rule ledger:
    input:
        sheet=f"{RESULTS}/sheet/slides.parquet",
        tissue=each_slide(f"{RESULTS}/tissue/{{slide}}.geojson"),
        encoded=each_slide(f"{RESULTS}/encoded/{{slide}}.h5"),
    output:
        f"{RESULTS}/ledger/ledger.parquet",
    log:
        f"{RESULTS}/logs/ledger/ledger.log",
    benchmark:
        f"{RESULTS}/benchmarks/ledger/ledger.tsv"
    conda:
        "../envs/slpd.yaml"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        labelled=True,
        unmatched=unmatched_outlines,
    script:
        "../workflow_scripts/ledger.py"


# The other patch encoders: the same three stages once more for each that a row of evaluate.rows names.


use rule patch_encoder as other_patch_encoder with:
    output:
        f"{RESULTS}/others/{{encoder}}/weights.safetensors",
    log:
        f"{RESULTS}/logs/others/{{encoder}}/patch_encoder.log",
    benchmark:
        f"{RESULTS}/benchmarks/others/{{encoder}}/patch_encoder.tsv"


use rule tokens as other_tokens with:
    input:
        regions=f"{RESULTS}/regions/{{slide}}.h5",
        weights=f"{RESULTS}/others/{{encoder}}/weights.safetensors",
    output:
        tokens=f"{RESULTS}/others/{{encoder}}/tokens/{{slide}}.h5",
        encoded=f"{RESULTS}/others/{{encoder}}/encoded/{{slide}}.h5",
    log:
        f"{RESULTS}/logs/others/{{encoder}}/tokens/{{slide}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/others/{{encoder}}/tokens/{{slide}}.tsv"


use rule ledger as other_ledger with:
    input:
        sheet=f"{RESULTS}/sheet/slides.parquet",
        tissue=each_slide(f"{RESULTS}/tissue/{{slide}}.geojson"),
        encoded=each_slide(f"{RESULTS}/others/{{{{encoder}}}}/encoded/{{slide}}.h5"),
    output:
        f"{RESULTS}/others/{{encoder}}/ledger.parquet",
    log:
        f"{RESULTS}/logs/others/{{encoder}}/ledger.log",
    benchmark:
        f"{RESULTS}/benchmarks/others/{{encoder}}/ledger.tsv"


rule slides:
    input:
        rules.ledger.output,
        each_slide(rules.regions.output.overlay),
