# The config checked whole, the sheet read, and what the rules share. The only rules file with Python in it.
import gc
import os
import re
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

# A workflow's jobs are no garbage: looking for some as often as Python does takes a sixth of the time.
gc.set_threshold(200_000, 20, 100)
sys.path.insert(0, workflow.basedir)

from snakemake import sourcecache
from snakemake.exceptions import WorkflowError
from snakemake.io import contains_wildcard

from slpd_core import config as sections

from slpd_core import artifacts, runtime
from slpd_core.preflight import texts
from slpd_core.slides import ledger, sheet
from slpd_core.slides.outline_files import find_outline, find_outlines
from slpd_core.wsi import identity, outages

# The address of a script is parsed for each of its jobs, three times: without that a plan takes a seventh less.
sourcecache.parse_uri = cache(sourcecache.parse_uri)


def gpus_of_rules():
    """The GPUs that --set-resources, or the profile, gives a job of a rule."""
    named = workflow.resource_settings.overwrite_resources.items()
    given = {rule: resources.get("gpu") for rule, resources in named}
    counts = {rule: getattr(gpu, "value", gpu) for rule, gpu in given.items()}
    return {rule: n for rule, n in counts.items() if isinstance(n, int) and n > 1}


@cache
def all_outlines():
    """The outlines of all slides, and the files in their folder that are of none."""
    slides = [*SHEET["slide_id"], *NEW_SHEET["slide_id"]]
    return find_outlines(CONFIG.tissue.masks, slides)


runtime.log.handlers = [runtime.terminal_handler()]

try:
    CONFIG = sections.load(config)
    SHEET = sheet.read_sheet(Path(CONFIG.sheet.path))
    NEW_SHEET = (
        sheet.read_sheet(Path(CONFIG.predict.sheet), labelled=False)
        if CONFIG.predict.sheet
        else SHEET.iloc[:0]
    )
    sheet.require_new(NEW_SHEET, SHEET)
    for key, encoder in CONFIG.patch_encoder.each().items():
        encoder.require_weights(key)
    CONFIG.folds.require_splits()
    if workflow.is_main_process:  # once a run, not once a job
        all_outlines()
        texts.require_cohort(CONFIG, SHEET, gpus_of_rules())
except (ValueError, OSError) as error:
    raise WorkflowError(runtime.escape_controls(str(error), keep="\n\t"))

RESULTS = f"results/{CONFIG.cohort}"
COHORT, NEW = [*SHEET["slide_id"]], [*NEW_SHEET["slide_id"]]
SLIDES = {
    row["slide_id"]: row
    for table in (SHEET, NEW_SHEET)
    for row in table.to_dict("records")
}
RUNS = list(CONFIG.pretrain.runs)
# The trained encoders by run: one of all slides, or one a fold.
ENCODERS = {
    run: (
        [run]
        if CONFIG.pretrain.run(run).slides == "all"
        else [f"{run}.fold{fold}" for fold in range(CONFIG.folds.count)]
    )
    for run in RUNS
}
SHOWN = [names[0] for names in ENCODERS.values()]  # of each run, in the report
ROWS = [
    (features, classifier)
    for features, names in CONFIG.evaluate.rows.items()
    for classifier in names
]
FOLDS = range(CONFIG.folds.count)
# What rows may be made of: all that the settings name, in evaluate.rows or not.
FEATURES = [
    sections.COLOUR_FEATURES,
    sections.PATCH_FEATURES,
    *CONFIG.patch_encoder.others,
    *RUNS,
]
READ_RETRIES = 2  # of a job that reads a slide: the network may fail once
FIRST_WAIT_S, WAIT_GROWS = 10, 4  # before its second attempt, and so much longer each
# What runs note of the slides' files, undeclared: fingerprints with sizes and dates, and the files not read.
STATE = f"{RESULTS}/state"
UNREAD = outages.count_failures(Path(STATE))
# How the patch encoder is trained, in a workflow that trains it.
RECIPE = CONFIG.patch_encoder.recipe and CONFIG.patch_encoder.recipe.model_dump()
# The figures of the report: where `snakemake --report` shows them, and what it calls them there.
FIGURES = {
    "roc": ("Results", "ROC curves"),
    "predictions": ("Results", "Confusion and calibration"),
    **({"patch_encoder": ("Pretraining", "Patch encoder's curves")} if RECIPE else {}),
    **(
        {
            "training": ("Pretraining", "Training curves"),
            "tsne": ("Pretraining", "t-SNE of regions"),
        }
        if RUNS
        else {}
    ),
}
# The result table of each cohort that report.tables names.
TABLES = {
    cohort: f"results/{cohort}/report/table.parquet"
    for table in CONFIG.report.tables.values()
    for cohort in table.cohorts
}


def one_of(names):
    """A pattern of these names and no other: what is misspelt, or was removed, is not made."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


wildcard_constraints:
    slide="[^/]+",  # not the slides by name: Snakemake goes through them at every file
    encoder=one_of(CONFIG.patch_encoder.others),
    run=one_of(sum(ENCODERS.values(), [])),
    features=one_of(FEATURES),
    classifier=one_of(sections.CLASSIFIERS),
    fold=one_of(FOLDS),


def count_outlines():
    """Say before a run how many slides are outlined by hand, and which files of their folder are of none."""
    if CONFIG.tissue.masks:
        text = all_outlines().describe(len(SLIDES))
        print(f"tissue.masks: {runtime.escape_controls(text)}", file=sys.stderr)


def name_left_out():
    """Say at the end of a run which slides were left out, and why."""
    for folder in ("ledger", *(["predict"] if NEW else [])):
        # One that cannot be read, or is of an earlier version, is the matter of the jobs that read it.
        with suppress(OSError, ValueError):
            table, _ = artifacts.read_table(
                Path(RESULTS, folder, "ledger.parquet"), "ledger"
            )
            for line in ledger.exclusion_messages(table):
                print(runtime.escape_controls(line), file=sys.stderr)


def name_run_remarks():
    """Say at the end of a run which regions the losses with prototypes of a pretraining run do not reach."""
    for run in sum(ENCODERS.values(), []):
        path = Path(RESULTS, "pretrain", run, "prototypes.h5")
        with suppress(OSError, ValueError):  # as above
            _, attributes = artifacts.read_arrays(path, ())
            for remark in attributes.get("remarks", "").splitlines():
                print(f"pretrain {run}: {remark}", file=sys.stderr)


def date_back():
    """Give artifacts dated tomorrow, from before the clock was set back, the date of now: Snakemake fails, and deletes,
    what is made from them.
    """
    now = time.time()
    for path in Path(RESULTS).rglob("*"):
        if path.is_file() and path.stat().st_mtime > now:
            os.utime(path, (now, now))


def limit_of(resource):
    """How much of a resource jobs may use at a time by the command line or the profile; 0 where neither says."""
    limit = workflow.global_resources.get(resource)
    return int(getattr(limit, "value", limit) or 0)


def stage_version(module):
    """VERSION of a stage's module, read from its text: importing it would cost a parse of the workflow seconds."""
    text = Path(workflow.basedir, "slpd_core", f"{module}.py").read_text(
        encoding="utf-8"
    )
    return int(re.search(r"^VERSION = (\d+)", text, re.MULTILINE)[1])


def slide_path(wildcards):
    """The file of a slide."""
    if wildcards.slide not in SLIDES:
        raise WorkflowError(f"{wildcards.slide}: no such slide in {CONFIG.sheet.path}")
    return SLIDES[wildcards.slide]["path"]


def slide_mpp(wildcards):
    """The sheet's um/px of a slide, None where the slide's own is to be used."""
    mpp = SLIDES[wildcards.slide]["mpp"]
    return None if mpp != mpp else float(mpp)


# Where things lie that may move is a parameter that is a function of threads: such a one Snakemake does not compare
# with that of the last run. What they are known by are other parameters: rows, size and date. As inputs, sheets and
# slides dated tomorrow by another machine's clock would be errors.


def where_sheet_is(wildcards, threads):
    """The sheet, for the job that checks it."""
    return CONFIG.sheet.path


def where_sheets_are(wildcards, threads):
    """The sheet of the cohort and, if there is one, that of the slides to be predicted."""
    return [*filter(None, [CONFIG.sheet.path, CONFIG.predict.sheet])]


def where_new_sheet_is(wildcards, threads):
    """The sheet of the slides to be predicted."""
    return CONFIG.predict.sheet


def where_slide_is(wildcards, threads):
    """The file of a slide, for its jobs."""
    return slide_path(wildcards)


def where_slides_are(wildcards, threads):
    """The file of each slide of the cohort."""
    return {slide: SLIDES[slide]["path"] for slide in COHORT}


def where_cache_is(wildcards, threads):
    """The folder of tokens that cohorts share, if there is one."""
    return CONFIG.tokens.cache


@cache
def slide_descriptions(only=None):
    """What each slide is known by, and its bytes; as they are at first sight, for a disk may be away later on."""
    slides = SLIDES if only is None else [only]
    return identity.describe({slide: Path(SLIDES[slide]["path"]) for slide in slides})


def slide_description(slide):
    """That of a slide. Snakemake asks for it in a job's process too, where nothing reads it: without the others."""
    return slide_descriptions(None if workflow.is_main_process else slide)[slide]


def slide_file(wildcards):
    """What a slide's files are known by: another text is another slide, and one that could not be read is so too."""
    failed = UNREAD.get(wildcards.slide, 0)
    text = slide_description(wildcards.slide)[0]
    return f"{text}; not read {failed} time(s)" if failed else text


def file_state(path):
    """What a file is known by: its size and date, whatever it is called."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise WorkflowError(str(error))
    return f"{stat.st_size} bytes of {stat.st_mtime_ns}"


def watched(paths):
    """Those of a user's files that can be inputs: Snakemake takes braces in the others for wildcards."""
    return [path for path in paths if not contains_wildcard(path)]


def unwatched(paths):
    """What those of a user's files are known by that cannot be inputs."""
    return [file_state(path) for path in paths if contains_wildcard(path)]


@cache
def outline_path(slide):
    """The GeoJSON a user outlined for a slide, where there is one; a job's process looks for that of its slide only."""
    if workflow.is_main_process:
        return all_outlines().paths.get(slide)
    return find_outline(CONFIG.tissue.masks, slide)


def where_outline_is(wildcards, threads):
    """The GeoJSON a user outlined for a slide, for its job."""
    return outline_path(wildcards.slide)


def unmatched_outlines(wildcards, threads):
    """The names of the files in the folder of outlines that are of no slide."""
    return [*all_outlines().unmatched]


def outline_file(wildcards):
    """What the outline of a slide is known by, where there is one."""
    path = outline_path(wildcards.slide)
    return path and file_state(path)


def outline_section(wildcards):
    """How the outline of a slide is read, where there is one."""
    return CONFIG.tissue.outline.model_dump() if outline_file(wildcards) else None


def last_attempt(wildcards, attempt):
    """1 on the last of a job's attempts, else 0."""
    return int(attempt > READ_RETRIES)


def wait_before_attempt(wildcards, attempt):
    """Seconds before a job that reads a slide: none at first, then longer each time, as an outage may last."""
    return FIRST_WAIT_S * WAIT_GROWS ** (attempt - 2) if attempt > 1 else 0


def growing(amount):
    """Memory in MB or time in minutes as a job asks for it: so much more with each attempt. amount: a number, or a
    function of the wildcards.
    """

    def resource(wildcards, attempt):
        return attempt * round(amount(wildcards) if callable(amount) else amount)

    return resource


@cache
def gigabytes(path):
    """The size of a file, looked up once."""
    return os.stat(path).st_size / 1e9


def slide_minutes(start, per_gb):
    """Time of a job on one slide: a start, and so many minutes a GB of its files."""

    def minutes(wildcards):
        slide_path(wildcards)  # or it is no slide
        return start + per_gb * slide_description(wildcards.slide)[1] / 1e9

    return minutes


def encoding_mb(wildcards):
    """Memory to encode a slide: PyTorch, some regions at a time on their way to the encoder, its weights."""
    weights = sum(map(gigabytes, encoder_weights(wildcards)))
    return 3000 + 20 * CONFIG.regions.size_px**2 * 3 / 1e6 + 4000 * weights


def training_minutes(items_a_slide, epochs, items_a_second):
    """Time to train on the cohort: an hour, and that of its patches or regions in all epochs."""
    return 60 + len(COHORT) * items_a_slide * epochs / items_a_second / 60


def encoder_minutes(wildcards):
    """Time for a patch encoder: to train it at 300 patches a second, or to convert it."""
    if not encoder_recipe(wildcards):
        return 30
    return training_minutes(CONFIG.patches.per_slide, RECIPE["epochs"], 300)


def run_minutes(wildcards):
    """Time for a pretraining run: 60 regions a slide, as in TCGA, at 250 a second, a tenth of what an H200 does."""
    return training_minutes(60, run_settings(wildcards).epochs, 250)


def evaluation_minutes(wildcards):
    """Time for a classifier of one fold: the slowest take 0.12 s a slide and epoch, of 15,000 patches each."""
    return 30 + len(COHORT) * CONFIG.evaluate.training.epochs / 150


def encoder(wildcards):
    """A patch encoder: the other one that a wildcard names, else the cohort's own."""
    name = wildcards.get("encoder")
    return CONFIG.patch_encoder.other(name) if name else CONFIG.patch_encoder.own


def encoder_section(wildcards):
    """The settings of a patch encoder."""
    return encoder(wildcards).model_dump()


def encoder_recipe(wildcards):
    """How a patch encoder is trained; None where its weights come from elsewhere."""
    return RECIPE if encoder(wildcards).source == "dino" else None


def encoder_weights(wildcards):
    """The local files that a patch encoder's source reads, if any."""
    return encoder(wildcards).files


def watched_weights(wildcards):
    """Those that can be inputs."""
    return watched(encoder_weights(wildcards))


def unwatched_weights(wildcards):
    """What those are known by that cannot."""
    return unwatched(encoder_weights(wildcards))


def sampled_patches(wildcards):
    """The patches of every slide, where a patch encoder is trained on them."""
    patches = each_slide(f"{RESULTS}/patches/{{slide}}.h5")
    return patches if encoder_recipe(wildcards) else []


def encoder_threads(wildcards):
    """Threads for a patch encoder: many where it is trained."""
    return 8 if encoder_recipe(wildcards) else 1


def encoder_gpus(wildcards):
    """GPUs for a patch encoder: one where it is trained."""
    return 1 if encoder_recipe(wildcards) else 0


def patch_history(wildcards):
    """The training curves of the patch encoder, where it is trained on this cohort."""
    return f"{RESULTS}/patch_encoder/history.parquet" if RECIPE else []


def run_settings(wildcards):
    """The settings of a pretraining run, its overrides applied; its encoders of each fold have the same."""
    return CONFIG.pretrain.run(wildcards.run.partition(".")[0])


def run_section(wildcards):
    """The settings of a pretraining run as a plain dictionary."""
    return run_settings(wildcards).model_dump()


def run_begins_with(wildcards):
    """The encoder that a pretraining run begins with, if any, as an input."""
    return watched(filter(None, [run_settings(wildcards).init_from]))


def unwatched_beginning(wildcards):
    """What it is known by where it cannot be an input."""
    return unwatched(filter(None, [run_settings(wildcards).init_from]))


def run_fold(wildcards):
    """The fold whose training slides alone a pretraining run sees, None where it sees all."""
    fold = wildcards.run.partition(".fold")[2]
    return int(fold) if fold else None


def run_folds(wildcards):
    """The folds, where a pretraining run sees the training slides of one."""
    return [] if run_fold(wildcards) is None else f"{RESULTS}/folds/folds.parquet"


def encoder_of_fold(features, fold):
    """The trained encoder behind a row's features that a fold's test slides are new to where there is one; "" for
    patches, which are read from the tokens.
    """
    encoders = ENCODERS.get(features, [])
    of_fold = f"{features}.fold{fold}"
    return of_fold if of_fold in encoders else features if encoders else ""


def embed_table(wildcards):
    """The embeddings a row's features name."""
    name = encoder_of_fold(wildcards.features, wildcards.fold)
    return f"{RESULTS}/embed/{name}.parquet" if name else []


def embed_of_each_fold(wildcards):
    """The embeddings a row's features name, in the order of the folds."""
    names = [encoder_of_fold(wildcards.features, fold) for fold in FOLDS]
    return [f"{RESULTS}/embed/{name}.parquet" for name in names]


def ledger_of_tokens(wildcards):
    """What became of the slides with the other patch encoder that a row's features name, else with the cohort's own."""
    features = wildcards.features
    other = features in CONFIG.patch_encoder.others
    folder = f"others/{features}" if other else "ledger"
    return f"{RESULTS}/{folder}/ledger.parquet"


def folder_of_tokens(features):
    """Where a row's tokens are: those of the other patch encoder its features name, else of the cohort's own."""
    other = features in CONFIG.patch_encoder.others
    return f"{RESULTS}/others/{features}/tokens" if other else f"{RESULTS}/tokens"


def tokens_folder(wildcards):
    """Where a row's tokens are."""
    return folder_of_tokens(wildcards.features)


def each_slide(pattern):
    """A file a slide of the cohort, in the order of the sheet."""
    return expand(pattern, slide=COHORT)


def each_new_slide(pattern):
    """A file a slide to be predicted, in the order of their sheet."""
    return expand(pattern, slide=NEW)


def tables_of_cohorts(wildcards):
    """The result tables that report.tables joins: this cohort's, and of the others those that are there."""
    if not TABLES:
        raise WorkflowError(
            "report.tables: none is named; cohorts/paper.yaml has those of the paper"
        )
    return [
        path
        for cohort, path in TABLES.items()
        if cohort == CONFIG.cohort or Path(path).exists()
    ]


def new_ledger_of(features):
    """What became of the slides to be predicted with a row's patch encoder."""
    other = features in CONFIG.patch_encoder.others
    folder = f"predict/others/{features}" if other else "predict"
    return f"{RESULTS}/{folder}/ledger.parquet"


def models_of(features, classifier):
    """The classifiers of a row, in the order of the folds."""
    return [
        f"{RESULTS}/evaluate/{features}/{classifier}/fold{fold}.safetensors"
        for fold in FOLDS
    ]


def predicting_rows():
    """Each row that predicts new slides: its classifiers of the folds, the new slides' embeddings for each of them, and
    the folder of the tokens.
    """
    rows = []
    for features, classifier in CONFIG.predicting:
        names = [encoder_of_fold(features, fold) for fold in FOLDS]
        rows.append(
            {
                "features": features,
                "classifier": classifier,
                "models": models_of(features, classifier),
                "embeds": [
                    f"{RESULTS}/predict/embed/{name}.parquet" for name in names if name
                ],
                "tokens": folder_of_tokens(features),
                "ledger": new_ledger_of(features),
            }
        )
    return rows


def new_slides_features(wildcards):
    """What new slides are predicted from: the classifiers of each row and the slides' embeddings or tokens."""
    if not NEW:
        raise WorkflowError(
            "predict.sheet: no slides to predict; write a sheet of columns slide_id, path and name it there, for example "
            "--config predict='{sheet: new.csv}'"
        )
    found = []
    for row in predicting_rows():
        found += row["models"] + row["embeds"]
        found.append(row["ledger"])
    return [*dict.fromkeys(found)]


def each_fold_of_each_row():
    """Every evaluated fold that the report joins."""
    return [
        f"{RESULTS}/evaluate/{features}/{classifier}/fold{fold}.parquet"
        for features, classifier in ROWS
        for fold in FOLDS
    ]
