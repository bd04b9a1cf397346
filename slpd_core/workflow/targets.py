"""The targets of a workflow and their inputs: runs, folds and rows (features with a classifier) of its settings."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from slpd_core import config
from slpd_core.artifacts.paths import CohortPaths, join_encoder_name, split_encoder_name


def name_pattern(names: Iterable[Any]) -> str:
    """Build a regular expression that matches these names alone.

    Args:
        names: The names; a wildcard of another name then has no rule.

    Returns:
        The expression; it matches nothing where there are no names.
    """
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


class Targets:
    """The targets of a workflow and their inputs, as functions of a rule's wildcards.

    Args:
        settings: The whole config.
        cohort_slides: Ids of the cohort's slides.
        new_slides: Ids of the slides to be predicted.
    """

    def __init__(
        self, settings: config.Config, cohort_slides: Sequence[str] = (), new_slides: Sequence[str] = ()
    ) -> None:
        self.settings, self.cohort_slides, self.new_slides = settings, cohort_slides, new_slides
        self.paths = CohortPaths(Path("results", settings.cohort))
        self.runs = [*settings.pretrain.runs]
        self.folds = range(settings.folds.count)
        recipe = settings.patch_encoder.recipe
        self.recipe = recipe.model_dump() if recipe else None  # by which the patch encoder is trained, or None
        run_configs = {run: settings.pretrain.run(run) for run in self.runs}
        # The trained region encoders by run: one of all slides, or one per fold.
        self.region_encoders = {
            run: [run] if run_config.train_on == "all" else [join_encoder_name(run, fold) for fold in self.folds]
            for run, run_config in run_configs.items()
        }
        self.all_region_encoders = [name for names in self.region_encoders.values() for name in names]
        self.report_encoders = [names[0] for names in self.region_encoders.values()]  # of each run, in the report
        self.galleries = [
            str(self.paths.gallery(self.region_encoders[run][0]))
            for run, run_config in run_configs.items()
            if run_config.uses_prototypes
        ]
        # Names of the features that classifiers may be trained on, whether evaluate.classifiers names it or not.
        plain = (config.COLOR_FEATURES, config.PATCH_FEATURES)
        self.feature_names = [*plain, *settings.patch_encoder.compared, *self.runs]

    @property
    def figures(self) -> dict[str, tuple[str, str]]:
        """The figures of the report: where `snakemake --report` shows them, and under which name."""
        figures = {"roc": ("Results", "ROC curves"), "predictions": ("Results", "Confusion and calibration")}
        if self.recipe:
            figures["patch_encoder"] = ("Pretraining", "Patch encoder's curves")
        if self.runs:
            figures["training"] = ("Pretraining", "Training curves")
            figures["tsne"] = ("Pretraining", "t-SNE of regions")
        return figures

    @property
    def result_tables(self) -> dict[str, str]:
        """The result table of each cohort that report.tables names."""
        cohorts = [cohort for table in self.settings.report.tables.values() for cohort in table.cohorts]
        return {cohort: str(CohortPaths(Path("results", cohort)).result_table("parquet")) for cohort in cohorts}

    # Patch encoders: the compared one that a wildcard names, else the cohort's own

    def patch_encoder(self, wildcards: Any) -> config.PatchEncoderConfig:
        """Return the settings of a patch encoder.

        Args:
            wildcards: Of a rule; `encoder` names a compared one.

        Returns:
            Its settings.
        """
        return self._patch_encoders[getattr(wildcards, "encoder", "")]

    def patch_encoder_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings of a patch encoder as plain values.

        Args:
            wildcards: As in `patch_encoder`.

        Returns:
            Settings as a dict.
        """
        return self.patch_encoder(wildcards).model_dump()

    def patch_encoder_recipe(self, wildcards: Any) -> dict[str, Any] | None:
        """Return the settings by which a patch encoder is trained.

        Args:
            wildcards: As in `patch_encoder`.

        Returns:
            Settings as a dict; None where its weights come from elsewhere.
        """
        return self.recipe if self.patch_encoder(wildcards).source == "dino" else None

    def patch_encoder_files(self, wildcards: Any) -> list[str]:
        """Return the local files that a patch encoder's source reads.

        Args:
            wildcards: As in `patch_encoder`.

        Returns:
            Their paths.
        """
        return self.patch_encoder(wildcards).files

    def sampled_patches(self, wildcards: Any) -> list[str]:
        """Return the patches that a patch encoder is trained on.

        Args:
            wildcards: As in `patch_encoder`.

        Returns:
            One file per slide; none where it is not trained.
        """
        slides = self.cohort_slides if self.patch_encoder_recipe(wildcards) else []
        return [str(self.paths.patches(slide)) for slide in slides]

    def patch_history(self, wildcards: Any) -> str | list[str]:
        """Return the training curves of the cohort's own patch encoder.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            The table; nothing where the encoder is not trained.
        """
        return str(self.paths.patch_history()) if self.recipe else []

    # Pretraining runs

    def run(self, wildcards: Any) -> config.PretrainRunConfig:
        """Return the settings of a run; its encoders of all folds have the same.

        Args:
            wildcards: Of a rule; `run` names a trained region encoder.

        Returns:
            The settings.
        """
        return self.settings.pretrain.run(split_encoder_name(wildcards.run)[0])

    def run_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings of a run as plain values.

        Args:
            wildcards: As in `run`.

        Returns:
            Settings as a dict.
        """
        return self.run(wildcards).model_dump()

    def init_from_path(self, wildcards: Any) -> list[str]:
        """Return the encoder that a run begins with.

        Args:
            wildcards: As in `run`.

        Returns:
            Its path; nothing where the run begins with random weights.
        """
        return [*filter(None, [self.run(wildcards).init_from])]

    def run_fold(self, wildcards: Any) -> int | None:
        """Return the fold whose training slides alone an encoder sees.

        Args:
            wildcards: As in `run`.

        Returns:
            The fold; None where it sees all slides.
        """
        return split_encoder_name(wildcards.run)[1]

    def run_folds(self, wildcards: Any) -> str | list[str]:
        """Return the table of folds where an encoder sees the training slides of one.

        Args:
            wildcards: As in `run`.

        Returns:
            The table; nothing where it sees all slides.
        """
        return [] if self.run_fold(wildcards) is None else str(self.paths.folds())

    # Rows: features and classifier

    def fold_encoder(self, features: str, fold: int | str) -> str:
        """Name the region encoder behind these features and fold.

        Args:
            features: As evaluate.classifiers names them.
            fold: The fold.

        Returns:
            The fold's own encoder if the run trains one per fold, else the run's; "" for patch features.
        """
        names, of_fold = self.region_encoders.get(features, []), join_encoder_name(features, int(fold))
        return of_fold if of_fold in names else features if names else ""

    def embed_table(self, wildcards: Any) -> str | list[str]:
        """Return the embeddings of a row and fold.

        Args:
            wildcards: Of a rule; `features` and `fold`.

        Returns:
            The table; nothing for patch features.
        """
        name = self.fold_encoder(wildcards.features, wildcards.fold)
        return str(self.paths.embed(name)) if name else []

    def embed_tables(self, wildcards: Any) -> list[str]:
        """Return the embeddings of a row.

        Args:
            wildcards: Of a rule; `features`.

        Returns:
            One table per fold, in their order.
        """
        return [str(self.paths.embed(self.fold_encoder(wildcards.features, fold))) for fold in self.folds]

    def tokens_ledger(self, wildcards: Any) -> str:
        """Return the ledger of the patch encoder behind a row.

        Args:
            wildcards: Of a rule; `features`.

        Returns:
            The table.
        """
        return str(self.paths.ledger(encoder=self._compared(wildcards.features)))

    def tokens_dir(self, wildcards: Any) -> str:
        """Return the folder of the tokens behind a row.

        Args:
            wildcards: Of a rule; `features`.

        Returns:
            The folder.
        """
        return str(self.paths.tokens_dir(encoder=self._compared(wildcards.features)))

    def row_models(self, wildcards: Any) -> list[str]:
        """Return the trained classifiers of a row.

        Args:
            wildcards: Of a rule; `features` and `classifier`.

        Returns:
            One file per fold, in their order.
        """
        return self._models(wildcards.features, wildcards.classifier)

    def all_predictions(self) -> list[str]:
        """Return the predictions of every row and fold.

        Returns:
            The tables, row by row.
        """
        rows = self.settings.evaluate.classifiers.items()
        pairs = [(features, classifier) for features, names in rows for classifier in names]
        return [str(self.paths.predictions(*pair, fold)) for pair in pairs for fold in self.folds]

    def all_heatmaps(self) -> list[str]:
        """Return the heat maps of every row whose classifier attends to regions.

        Returns:
            One picture per row.
        """
        return [str(self.paths.heatmaps(*pair)) for pair in self.settings.attending]

    def joined_tables(self, wildcards: Any) -> list[str]:
        """Return the result tables that report.tables joins.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            This cohort's, and of the others those that exist.

        Raises:
            ValueError: report.tables names none.
        """
        if not self.result_tables:
            raise ValueError("report.tables: none is named; cohorts/paper.yaml has those of the paper")
        tables = self.result_tables.items()
        return [path for cohort, path in tables if cohort == self.settings.cohort or Path(path).exists()]

    # New slides

    def prediction_rows(self) -> list[dict[str, Any]]:
        """Return the rows that predict new slides.

        Returns:
            Of each the features, the classifier, its trained classifiers, embeddings, folder of tokens and ledger.
        """
        rows = []
        for features, classifier in self.settings.predicting:
            names = [self.fold_encoder(features, fold) for fold in self.folds]
            rows.append(
                {
                    "features": features,
                    "classifier": classifier,
                    "models": self._models(features, classifier),
                    "embeds": [str(self.paths.new_embed(name)) for name in names if name],
                    "tokens": str(self.paths.tokens_dir(encoder=self._compared(features))),
                    "ledger": str(self.paths.new_ledger(encoder=self._compared(features))),
                }
            )
        return rows

    def prediction_inputs(self, wildcards: Any) -> list[str]:
        """Return the files that new slides are predicted from.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths, each once.

        Raises:
            ValueError: There are no slides to predict.
        """
        if not self.new_slides:
            raise ValueError(
                "predict.sheet: no slides to predict; write a sheet of columns slide_id, path and name it there, for "
                "example --config predict='{sheet: new.csv}'"
            )
        rows = self.prediction_rows()
        return [*dict.fromkeys(path for row in rows for path in [*row["models"], *row["embeds"], row["ledger"]])]

    def _compared(self, features: str) -> str:
        """The compared patch encoder that features name; "" where they are of the cohort's own."""
        return features if features in self.settings.patch_encoder.compared else ""

    def _models(self, features: str, classifier: str) -> list[str]:
        return [str(self.paths.classifier(features, classifier, fold)) for fold in self.folds]

    @cached_property
    def _patch_encoders(self) -> dict[str, config.PatchEncoderConfig]:
        """The cohort's own patch encoder as "", and the compared ones by name."""
        encoders = self.settings.patch_encoder
        return {"": encoders.cohort_encoder} | {name: encoders.encoder(name) for name in encoders.compared}
