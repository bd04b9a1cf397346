"""The name of every file below results/{cohort}/: stage, then slide, run, or row and fold.

The rules write the same names as patterns; a test holds both equal.
"""

from dataclasses import dataclass
from pathlib import Path

PREDICT = "predict"  # the folder of new slides' tables


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
    """Name the trained region encoder of a run, and of a fold where it has one per fold."""
    return run if fold is None else f"{run}.fold{fold}"


@dataclass(frozen=True)
class CohortPaths:
    """The files of one cohort.

    Args:
        root: The folder results/{cohort}.
    """

    root: Path

    # Pixels to tokens, one file per slide. encoder: a compared patch encoder; "" is the cohort's own.

    def sheet(self) -> Path:
        """Return the checked sheet."""
        return self.root / "sheet" / "slides.parquet"

    def tissue(self, slide: str) -> Path:
        """Return a slide's tissue polygons."""
        return self.tissue_dir() / f"{slide}.geojson"

    def tissue_overlay(self, slide: str) -> Path:
        """Return the picture of a slide's tissue."""
        return self.tissue_dir() / f"{slide}.png"

    def regions(self, slide: str) -> Path:
        """Return a slide's grid of regions."""
        return self.regions_dir() / f"{slide}.h5"

    def regions_overlay(self, slide: str) -> Path:
        """Return the picture of a slide's regions."""
        return self.regions_dir() / f"{slide}.png"

    def patches(self, slide: str) -> Path:
        """Return a slide's patches for stage one; deleted once it has trained."""
        return self.root / "patches" / f"{slide}.h5"

    def patch_encoder(self, encoder: str = "") -> Path:
        """Return the weights of a patch encoder."""
        return self._encoder_dir(encoder, "patch_encoder") / "weights.safetensors"

    def patch_history(self) -> Path:
        """Return the training curves of the patch encoder; beside it the same as CSV."""
        return self.root / "patch_encoder" / "history.parquet"

    def patch_checkpoint(self) -> Path:
        """Return the state from which a stopped training of the patch encoder resumes."""
        return self.root / "patch_encoder" / "checkpoint.pt"

    def tokens(self, slide: str, encoder: str = "") -> Path:
        """Return a slide's tokens."""
        return self.tokens_dir(encoder) / f"{slide}.h5"

    def encoded(self, slide: str, encoder: str = "") -> Path:
        """Return the small file that says which tokens a slide has; the ledger reads it instead of them."""
        return self._encoder_dir(encoder) / "encoded" / f"{slide}.h5"

    def ledger(self, encoder: str = "") -> Path:
        """Return the ledger, one row per slide."""
        return self._encoder_dir(encoder, "ledger") / "ledger.parquet"

    # Tokens to embeddings. name: of a trained region encoder, see `split_encoder_name`.

    def encoder(self, name: str) -> Path:
        """Return the weights of a trained region encoder."""
        return self.root / "pretrain" / name / "encoder.safetensors"

    def history(self, name: str) -> Path:
        """Return the training curves of a region encoder; beside it the same as CSV."""
        return self.root / "pretrain" / name / "history.parquet"

    def prototypes(self, name: str) -> Path:
        """Return the slide prototypes that a run ended with."""
        return self.root / "pretrain" / name / "prototypes.h5"

    def checkpoint(self, name: str) -> Path:
        """Return the state from which a stopped run resumes."""
        return self.root / "pretrain" / name / "checkpoint.pt"

    def embed(self, name: str) -> Path:
        """Return the cohort's embeddings, one row per region."""
        return self.root / "embed" / f"{name}.parquet"

    def gallery(self, name: str) -> Path:
        """Return the picture of the prototypes."""
        return self.root / "gallery" / f"{name}.png"

    # Embeddings to numbers

    def folds(self) -> Path:
        """Return the folds."""
        return self.root / "folds" / "folds.parquet"

    def remarks(self) -> Path:
        """Return the audit of the folds; beside it the same as CSV."""
        return self.root / "folds" / "remarks.parquet"

    def predictions(self, features: str, classifier: str, fold: int | str) -> Path:
        """Return the predictions on a fold's test slides."""
        return self.root / "evaluate" / features / classifier / f"fold{fold}.parquet"

    def classifier(self, features: str, classifier: str, fold: int | str) -> Path:
        """Return the classifier trained on a fold."""
        return self.root / "evaluate" / features / classifier / f"fold{fold}.safetensors"

    def heatmaps(self, features: str, classifier: str) -> Path:
        """Return the picture of a row's attention."""
        return self.root / "heatmaps" / features / f"{classifier}.jpg"

    def page(self) -> Path:
        """Return the report."""
        return self.root / "report" / "index.html"

    def result_table(self, format: str = "parquet") -> Path:
        """Return the cohort's result table, in one of its formats."""
        return self.root / "report" / f"table.{format}"

    def figure(self, figure: str) -> Path:
        """Return a figure of the report."""
        return self.root / "report" / f"{figure}.png"

    def cohort_table(self, table: str, format: str) -> Path:
        """Return a table over several cohorts, in one of its formats."""
        return self.tables_dir() / f"{table}.{format}"

    # New slides to predictions. Their tissue, regions and tokens lie beside the cohort's.

    def new_sheet(self) -> Path:
        """Return the checked sheet of new slides."""
        return self.root / PREDICT / "slides.parquet"

    def new_ledger(self, encoder: str = "") -> Path:
        """Return the ledger of new slides."""
        return CohortPaths(self.root / PREDICT)._encoder_dir(encoder) / "ledger.parquet"

    def new_embed(self, name: str) -> Path:
        """Return the embeddings of new slides."""
        return self.root / PREDICT / "embed" / f"{name}.parquet"

    def new_predictions(self) -> Path:
        """Return the predictions on new slides."""
        return self.root / PREDICT / "predictions.csv"

    def new_heatmaps_dir(self) -> Path:
        """Return the folder of new slides' heat maps."""
        return self.root / PREDICT / "heatmaps"

    # Folders that stages read as a whole

    def tissue_dir(self) -> Path:
        """Return the folder of tissue polygons."""
        return self.root / "tissue"

    def regions_dir(self) -> Path:
        """Return the folder of grids of regions."""
        return self.root / "regions"

    def tokens_dir(self, encoder: str = "") -> Path:
        """Return the folder of tokens."""
        return self._encoder_dir(encoder) / "tokens"

    def tables_dir(self) -> Path:
        """Return the folder of tables over several cohorts."""
        return self.root / "tables"

    def state_dir(self) -> Path:
        """Return the folder of notes on slides' files, kept from run to run: fingerprints and failures to read."""
        return self.root / "state"

    def logs_dir(self) -> Path:
        """Return the folder of logs, one per job."""
        return self.root / "logs"

    def benchmarks_dir(self) -> Path:
        """Return the folder of times and memory, one file per job."""
        return self.root / "benchmarks"

    def _encoder_dir(self, encoder: str, folder: str = "") -> Path:
        """The folder of a compared patch encoder, else that of the cohort's own."""
        return self.root / "compared" / encoder if encoder else self.root / folder
