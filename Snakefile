# SLPD: from a folder of slides to a table of slide-level results. One stage, one word, everywhere; README.md is the map.
from snakemake.utils import min_version

min_version("9.27")


configfile: f"{workflow.basedir}/config.yaml"


report: "rules/captions/workflow.rst"


include: "rules/common.smk"
include: "rules/slides.smk"
include: "rules/pretraining.smk"
include: "rules/evaluation.smk"
include: "rules/predict.smk"
include: "rules/preflight.smk"


onstart:
    date_back()
    count_outlines()


onsuccess:
    name_left_out()
    name_run_remarks()


onerror:
    name_left_out()
    name_run_remarks()


rule all:
    default_target: True
    input:
        rules.slides.input,
        rules.pretraining.input,
        rules.evaluation.input,
