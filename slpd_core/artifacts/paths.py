"""The name of every file below results/{cohort}/: stage, then slide, run, or row and fold.

The rules write the same names as patterns; a test holds both equal.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import Formatter


def split_encoder_name(name: str) -> tuple[str, int | None]:
    """Split the name of a trained region encoder into its run and its fold.

    Args:
        name: `slpd` of a run on all slides, `slpd.fold3` of a run with one encoder per fold.

    Returns:
        The run, and the fold whose training slides alone the encoder saw; None where it saw all slides.
    """
    run, _, fold = name.partition(".fold")
    return run, int(fold) if fold else None


def join_encoder_name(run: str, fold: int | None) -> str:
    """Join a run and a fold to the name of a trained region encoder.

    Args:
        run: The pretraining run.
        fold: The fold whose training slides the encoder saw; None for an encoder of all slides.

    Returns:
        The name, as `split_encoder_name` reads it.
    """
    return run if fold is None else f"{run}.fold{fold}"


class PathPattern:
    """A file or folder of a cohort; as an attribute of `CohortPaths` it takes the names in braces.

    Args:
        pattern: Path below the cohort's folder, as the rules write it.
        compared: The same of a compared patch encoder, which it names {encoder}; "" where there is none.
    """

    def __init__(self, pattern: str, compared: str = "") -> None:
        self.pattern, self.compared = pattern, compared

    def __get__(self, paths: "CohortPaths", _: type) -> Callable[..., Path]:
        return partial(self.fill, paths.root)

    def fill(self, root: Path, *names: str | int, encoder: str = "") -> Path:
        """Fill names into the pattern.

        Args:
            root: The cohort's folder.
            names: One per pair of braces, in their order, but for {encoder}.
            encoder: A compared patch encoder; "" for the cohort's own.

        Returns:
            The path.

        Raises:
            ValueError: The pattern has more braces or fewer.
        """
        pattern = self.compared if encoder else self.pattern
        fields = [field for _, field, _, _ in Formatter().parse(pattern) if field and field != "encoder"]
        return root / pattern.format(encoder=encoder, **dict(zip(fields, names, strict=True)))


@dataclass(frozen=True)
class CohortPaths:
    """The files of one cohort: `paths.tissue("slide-7")`, `paths.ledger(encoder="hipt")`.

    Args:
        root: The folder results/{cohort}.
    """

    root: Path

    # Pixels to tokens
    sheet = PathPattern("sheet/slides.parquet")
    tissue = PathPattern("tissue/{slide}.geojson")
    tissue_overlay = PathPattern("tissue/{slide}.png")
    regions = PathPattern("regions/{slide}.h5")
    regions_overlay = PathPattern("regions/{slide}.png")
    patches = PathPattern("patches/{slide}.h5")  # deleted once stage one has trained
    patch_encoder = PathPattern("patch_encoder/weights.safetensors", "compared/{encoder}/weights.safetensors")
    patch_history = PathPattern("patch_encoder/history.parquet")  # and .csv
    patch_checkpoint = PathPattern("patch_encoder/checkpoint.pt")
    tokens = PathPattern("tokens/{slide}.h5", "compared/{encoder}/tokens/{slide}.h5")
    encoded = PathPattern("encoded/{slide}.h5", "compared/{encoder}/encoded/{slide}.h5")  # read by the ledger
    ledger = PathPattern("ledger/ledger.parquet", "compared/{encoder}/ledger.parquet")
    slide_index = PathPattern("slides/index.html")

    # Tokens to embeddings; a region encoder's name is its run's, or its run's and fold's: see `split_encoder_name`
    encoder = PathPattern("pretrain/{region_encoder}/encoder.safetensors")
    history = PathPattern("pretrain/{region_encoder}/history.parquet")  # and .csv
    prototypes = PathPattern("pretrain/{region_encoder}/prototypes.h5")
    monitored = PathPattern("pretrain/{region_encoder}/monitored.h5")
    checkpoint = PathPattern("pretrain/{region_encoder}/checkpoint.pt")
    embed = PathPattern("embed/{region_encoder}.parquet")
    gallery = PathPattern("gallery/{region_encoder}.png")

    # Embeddings to numbers
    labels = PathPattern("labels/{task}.parquet")
    folds = PathPattern("folds/{task}/folds.parquet")
    remarks = PathPattern("folds/{task}/remarks.parquet")  # and .csv
    predictions = PathPattern("evaluate/{task}/{features}/{classifier}/fold{fold}.parquet")
    classifier = PathPattern("evaluate/{task}/{features}/{classifier}/fold{fold}.safetensors")
    few_shot = PathPattern("few_shot/{task}/{features}.parquet")
    retrieval = PathPattern("retrieval/{task}/{features}.parquet")
    attention = PathPattern("attention/{task}/{features}/{classifier}.parquet")
    heatmaps = PathPattern("heatmaps/{task}/{features}/{classifier}.jpg")
    page = PathPattern("report/index.html")
    run_record = PathPattern("report/run.json")
    verdicts = PathPattern("report/verdicts.csv")
    methods = PathPattern("report/methods.md")
    references = PathPattern("report/methods.bib")
    pseudonyms = PathPattern("report/pseudonyms.csv")  # with report.pseudonyms
    figure = PathPattern("report/{figure}.png")  # of a task: {task}/{figure}
    result_table = PathPattern("report/{task}/table.{format}")
    few_shot_table = PathPattern("report/{task}/few_shot.{format}")
    retrieval_table = PathPattern("report/{task}/retrieval.{format}")
    test_slides = PathPattern("report/{task}/slides.html")
    all_predictions = PathPattern("report/{task}/predictions.csv")  # of all rows and folds
    cohort_table = PathPattern("tables/{table}.{format}")  # over several cohorts

    # Slides of external cohorts to predictions; their tissue, regions and tokens are beside the cohort's
    external_sheet = PathPattern("predict/{external}/slides.parquet")
    external_ledger = PathPattern(
        "predict/{external}/ledger.parquet", "predict/{external}/compared/{encoder}/ledger.parquet"
    )
    external_page = PathPattern("predict/{external}/index.html")
    external_embed = PathPattern("predict/{external}/embed/{region_encoder}.parquet")
    external_predictions = PathPattern("predict/{external}/{task}/predictions.csv")
    external_folds = PathPattern("predict/{external}/{task}/folds.parquet")  # predictions of single folds
    external_labels = PathPattern("predict/{external}/labels/{task}.parquet")
    external_table = PathPattern("predict/{external}/{task}/table.{format}")
    external_labeled = PathPattern("predict/{external}/{task}/labeled_predictions.csv")
    external_figures_dir = PathPattern("predict/{external}/{task}/figures")
    external_heatmaps_dir = PathPattern("predict/{external}/{task}/heatmaps")

    # Slides to similar slides; new slides are an external cohort
    search_index = PathPattern("search/{region_encoder}/index.h5")
    similar_slides = PathPattern("search/{region_encoder}/similar_slides.csv")
    matched_regions = PathPattern("search/{region_encoder}/matched_regions.csv")
    search_page = PathPattern("search/{region_encoder}/similar_slides.html")

    # Files of other tools, named by config.EXPORT_FORMATS
    export_record = PathPattern("export/slides/{slide}.json")  # names of the slide's files
    export_table = PathPattern("export/{format}/exported.csv")
    export_h5ad = PathPattern("export/h5ad/{region_encoder}.h5ad")
    export_huggingface = PathPattern("export/huggingface/{region_encoder}/{file}")

    # Folders that stages read as a whole
    tissue_dir = PathPattern("tissue")
    regions_dir = PathPattern("regions")
    tokens_dir = PathPattern("tokens", "compared/{encoder}/tokens")
    tables_dir = PathPattern("tables")
    state_dir = PathPattern("state")  # of slides' files, failures to read and precision, kept from run to run
    forecast = PathPattern("preflight/forecast.json")  # by which a run tells the time that it has left
    joined_slides = PathPattern("state/joined_slides.json")  # the slides of each job of tokens that has several
    kept_tokens_dir = PathPattern("state/tokens", "state/compared/{encoder}/tokens")  # of such jobs
    logs_dir = PathPattern("logs")
    benchmarks_dir = PathPattern("benchmarks")
