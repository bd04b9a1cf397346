# What is wrong, and what a run would take: before it is begun. No output: it runs whenever it is asked for.


rule preflight:
    log:
        "<logs>/preflight/preflight.log",
    conda:
        "../envs/slpd.yaml"
    threads: 8
    resources:
        gpu=1,
        mem_mb=8000,
    params:
        sheets=untracked([*filter(None, [CONFIG.sheet.path, CONFIG.predict.sheet])]),
        results=RESULTS,
        cores=resource_limit(workflow.global_resources, "_cores") or os.cpu_count(),
        gpus=resource_limit(workflow.global_resources, "gpu"),
    script:
        "../workflow_scripts/preflight.py"
