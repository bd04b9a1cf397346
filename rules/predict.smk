# NEW SLIDES to PREDICTIONS: the stages of `slides` and `embed` once more, then what the cohort's classifiers say


use rule sheet as new_sheet with:
    output:
        f"{RESULTS}/predict/slides.parquet",
    log:
        f"{RESULTS}/logs/predict/sheet.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/sheet.tsv"
    params:
        version=stage_version("slides/sheet"),
        sheet=where_new_sheet_is,
        rows=sheet.sheet_fingerprint(NEW_SHEET),
        labelled=False,


use rule ledger as new_ledger with:
    input:
        sheet=f"{RESULTS}/predict/slides.parquet",
        tissue=each_new_slide(f"{RESULTS}/tissue/{{slide}}.geojson"),
        encoded=each_new_slide(f"{RESULTS}/encoded/{{slide}}.h5"),
        # Which of the slides classifiers have been trained on, under other names.
        cohort=each_slide(f"{RESULTS}/tissue/{{slide}}.geojson"),
    output:
        f"{RESULTS}/predict/ledger.parquet",
    log:
        f"{RESULTS}/logs/predict/ledger.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        labelled=False,


use rule other_ledger as new_other_ledger with:
    input:
        sheet=f"{RESULTS}/predict/slides.parquet",
        tissue=each_new_slide(f"{RESULTS}/tissue/{{slide}}.geojson"),
        encoded=each_new_slide(f"{RESULTS}/others/{{{{encoder}}}}/encoded/{{slide}}.h5"),
    output:
        f"{RESULTS}/predict/others/{{encoder}}/ledger.parquet",
    log:
        f"{RESULTS}/logs/predict/others/{{encoder}}/ledger.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/others/{{encoder}}/ledger.tsv"
    params:
        section=CONFIG.ledger.model_dump(),
        version=stage_version("slides/ledger"),
        labelled=False,


use rule embed as new_embed with:
    input:
        ledger=f"{RESULTS}/predict/ledger.parquet",
        cohort_ledger=f"{RESULTS}/ledger/ledger.parquet",
        encoder=f"{RESULTS}/pretrain/{{run}}/encoder.safetensors",
    output:
        f"{RESULTS}/predict/embed/{{run}}.parquet",
    log:
        f"{RESULTS}/logs/predict/embed/{{run}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/embed/{{run}}.tsv"


rule predict:
    input:
        new_slides_features,
        ledger=f"{RESULTS}/predict/ledger.parquet",
    output:
        predictions=f"{RESULTS}/predict/predictions.csv",
        heatmaps=directory(f"{RESULTS}/predict/heatmaps"),
    log:
        f"{RESULTS}/logs/predict/predict.log",
    benchmark:
        f"{RESULTS}/benchmarks/predict/predict.tsv"
    conda:
        "../envs/slpd.yaml"
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
    params:
        version=stage_version("evaluation/predict"),
        rows=predicting_rows(),
        tissue=f"{RESULTS}/tissue",
        regions=f"{RESULTS}/regions",
    script:
        "../workflow_scripts/predict.py"
