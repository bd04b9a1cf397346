# Loads the config and the sheets, and names the wildcards. The rules compute with slpd_core/workflow.
import gc
import os
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, workflow.basedir)

from snakemake.exceptions import WorkflowError
from slpd_core import config as sections, runtime
from slpd_core.artifacts.paths import CohortPaths
from slpd_core.preflight import consistency
from slpd_core.slides import sheet
from slpd_core.workflow import exports, forecast, messages
from slpd_core.workflow import outcomes, run_display, run_record
from slpd_core.workflow.encoders import Encoders, name_pattern
from slpd_core.workflow.external_labels import ExternalLabels
from slpd_core.workflow.imports import ImportedFiles
from slpd_core.workflow.resources import (
    READ_RETRIES,
    JobResources,
    encoding_threads,
    gpus_by_rule,
    last_attempt,
    per_attempt,
    pretrain_memory,
    resource_limit,
    wait_before_attempt,
)
from slpd_core.workflow.joined_folds import select_joined_rows, row_pattern
from slpd_core.workflow.joined_slides import JoinedSlides
from slpd_core.workflow.rows import Rows
from slpd_core.workflow.searches import Searches
from slpd_core.workflow.slides import SlideFiles
from slpd_core.workflow.tasks import Tasks
from slpd_core.workflow.tracking import existing, file_states, trackable, untracked
from slpd_core.workflow.versions import stage_version
from slpd_core.wsi import outages

# A plan makes many objects and little garbage: collecting it as often as Python does takes a sixth of the time.
gc.set_threshold(200_000, 20, 100)
# Snakemake parses a script's address three times per job; a cache saves a seventh of a plan. Only in tested releases.
if version("snakemake").startswith("9.27."):
    with suppress(ImportError, AttributeError):
        from snakemake import sourcecache

        sourcecache.parse_uri = cache(sourcecache.parse_uri)

runtime.log.handlers = [runtime.terminal_handler()]

try:
    CONFIG = sections.load(config)
    SHEET = sheet.read_sheet(Path(CONFIG.sheet.path), columns=CONFIG.sheet.columns)
    EXTERNAL = sheet.read_external(CONFIG.predict.sheet, columns=CONFIG.sheet.columns)
    SEARCHES = Searches(CONFIG, SHEET, EXTERNAL)
    EXTERNAL |= sheet.read_external(SEARCHES.new_slides)
    sheet.require_new(SHEET, EXTERNAL)
    for key, encoder in CONFIG.patch_encoder.encoders().items():
        encoder.require_weights(key)
    CONFIG.tissue.require_weights()
    CONFIG.folds.require_splits()
    RESULTS = f"results/{CONFIG.cohort}"
    PATHS = CohortPaths(Path(RESULTS))
    FAILURES = outages.count_failures(PATHS.state_dir())
    SLIDES = SlideFiles(
        CONFIG, SHEET, EXTERNAL, FAILURES, planning=workflow.is_main_process
    )
    TASKS = Tasks(CONFIG, SHEET)
    ENCODERS = Encoders(CONFIG, SLIDES.cohort, TASKS.names)
    EXTERNAL_LABELS = ExternalLabels(CONFIG, EXTERNAL, TASKS)
    ROWS = Rows(CONFIG, ENCODERS, TASKS.endpoints, EXTERNAL_LABELS.pairs)
    EXPORTS = exports.Exports(CONFIG, SLIDES, ENCODERS, ROWS, workflow)
    RESOURCES = JobResources(CONFIG, SLIDES, ENCODERS)
    IMPORTS = ImportedFiles(CONFIG, SLIDES, ENCODERS)
    JOINED_SLIDES = JoinedSlides(PATHS, SLIDES, ENCODERS, workflow)
    if workflow.is_main_process:  # once per run, not once per job
        SLIDES.outlines  # raises where an outline is of no slide
        consistency.require_cohort(
            CONFIG,
            SHEET,
            TASKS.labels,
            gpus_by_rule(workflow.resource_settings.overwrite_resources),
            TASKS.endpoints,
        )
except (ValueError, OSError) as error:
    raise WorkflowError(runtime.escape_controls(str(error), keep="\n\t"))


wildcard_constraints:
    slide="[^/]+",  # not the slides' names: Snakemake would try them all on every file
    encoder=name_pattern(CONFIG.patch_encoder.compared),
    region_encoder=name_pattern(ENCODERS.names),
    task=name_pattern(TASKS.names),
    external=name_pattern(EXTERNAL),
    features=name_pattern(ROWS.feature_names),
    classifier=name_pattern(sections.CLASSIFIERS),
    fold=name_pattern(ROWS.folds),
