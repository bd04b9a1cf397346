# What is wrong, and what a run would take: before it is begun. No output: it runs whenever it is asked for.


rule preflight:
    log:
        f"{RESULTS}/logs/preflight/preflight.log",
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        sheets=where_sheets_are,
        results=RESULTS,
        cores=limit_of("_cores") or os.cpu_count(),
        gpus=limit_of("gpu"),
    script:
        "../workflow_scripts/preflight.py"
