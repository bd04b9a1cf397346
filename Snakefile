# SLPD: from a folder of slides to a table of slide-level results. One stage, one word, everywhere; README.md is the map.
from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"


pathvars:
    results=RESULTS,
    logs=str(PATHS.logs_dir()),
    benchmarks=str(PATHS.benchmarks_dir()),


include: "rules/slides.smk"
include: "rules/pretraining.smk"
include: "rules/evaluation.smk"
include: "rules/report.smk"
include: "rules/predict.smk"
include: "rules/search.smk"
include: "rules/export.smk"
include: "rules/preflight.smk"


onstart:
    JOINED_SLIDES.record()
    messages.clamp_future_mtimes(PATHS.root)
    messages.report_outlines(SLIDES)
    messages.report_tasks(TASKS, EXTERNAL_LABELS, at_start=True)
    run_display.show_run(workflow, PATHS)


onsuccess:
    last_lines = run_display.end_run(workflow)
    messages.report_excluded(PATHS, SLIDES.external)
    messages.report_tasks(TASKS, EXTERNAL_LABELS, at_start=False)
    messages.report_run_remarks(PATHS, ENCODERS.names)
    messages.report_lines(last_lines)
    run_record.write_run_record(PATHS, CONFIG, Path(workflow.basedir))
    planned = {job.rule.name for job in workflow.dag.jobs}
    reference = CONFIG.report.reference
    messages.report_lines(
        outcomes.describe_outcomes(
            planned, PATHS, TASKS.endpoints, CONFIG.predict.sheet, reference
        )
    )


onerror:
    last_lines = run_display.end_run(workflow)
    messages.report_excluded(PATHS, SLIDES.external)
    messages.report_run_remarks(PATHS, ENCODERS.names)
    messages.report_lines(last_lines)


rule all:
    default_target: True
    input:
        rules.slides.input,
        rules.pretraining.input,
        rules.evaluation.input,
