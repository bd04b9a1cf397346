# Finds what would fail and forecasts what a run takes. Without an output it runs whenever it is requested.


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
        sheets=untracked([CONFIG.sheet.path, *CONFIG.predict.sheet.values()]),
        results=RESULTS,
        cores=resource_limit(workflow.global_resources, "_cores") or os.cpu_count(),
        gpus=resource_limit(workflow.global_resources, "gpu"),
        pretrain_mb=pretrain_memory(
            workflow.resource_settings.overwrite_resources, workflow.global_resources
        ),
    script:
        "../workflow_scripts/preflight.py"
