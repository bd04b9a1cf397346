"""The rows of the result tables: per task, the features and classifiers of evaluate.classifiers, in each fold.

Features are those of a region encoder (a run's name), or of a patch encoder. Every method that takes `wildcards` is an
input or parameter of a rule, of which it reads `task`, `features`, `classifier` and `fold`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slpd_core import config
from slpd_core.artifacts.paths import CohortPaths, join_encoder_name
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.workflow.encoders import Encoders

# Kind of endpoint -> the figures of the report that it has, and their names in `snakemake --report`.
FIGURES = {
    "classification": {"roc": "ROC curves", "predictions": "Confusion and calibration"},
    "ordinal": {"predictions": "Confusion and calibration"},
    "regression": {"predictions": "Predicted and true values"},
    "survival": {"kaplan_meier": "Kaplan–Meier curves", "dynamic_auc": "Time-dependent AUC"},
}


class Rows:
    """The rows of the result tables of a cohort.

    Args:
        settings: The whole config.
        encoders: Of the cohort.
        tasks: Their endpoints by name; none of a cohort without labels.
        scored: The external cohorts and tasks whose labels are known.

    Raises:
        ValueError: A task has no row, or evaluate.protocols has no task of classes.
    """

    def __init__(
        self,
        settings: config.Config,
        encoders: Encoders,
        tasks: Mapping[str, Endpoint],
        scored: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.settings, self.encoders, self.tasks, self.scored = settings, encoders, tasks, scored
        self.paths, self.folds = encoders.paths, range(settings.folds.count)
        # Names of features that classifiers may be trained on, whether evaluate.classifiers names them or not.
        plain = (config.COLOR_FEATURES, config.PATCH_FEATURES, *config.TOKEN_FEATURES)
        self.feature_names = [*plain, *settings.patch_encoder.compared, *encoders.runs]
        for task in {*tasks} - {task for task, *_ in self.evaluated}:
            raise ValueError(
                f"labels.tasks.{task}: no row of evaluate.classifiers is left for it, since all their features follow "
                "the folds of another task (pretrain.fold_task); add patch_tokens, or a run on all slides"
            )
        if tasks and settings.evaluate.protocols and not self.protocols:
            raise ValueError(
                f"evaluate.protocols: {', '.join(settings.evaluate.protocols)} need classes, but no task has any (kind "
                f"{', '.join(sorted({endpoint.kind for endpoint in tasks.values()}))}); set it to [], or add a task of "
                "kind classification or ordinal"
            )

    def select(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Return the rows of pairs of features and classifier: task, features, classifier, task by task.

        A run whose encoders follow the folds of a task has rows of that task alone: its encoders have seen test slides
        of the others.
        """
        task_of = self.encoders.fold_task
        return [(task, *pair) for task in self.tasks for pair in pairs if task_of.get(pair[0]) in (None, "", task)]

    @property
    def evaluated(self) -> list[tuple[str, str, str]]:
        """All rows."""
        rows = self.settings.evaluate.classifiers.items()
        return self.select([(features, classifier) for features, names in rows for classifier in names])

    @property
    def protocols(self) -> list[tuple[str, str, str]]:
        """The evaluations of evaluate.protocols: protocol, task, features. Tasks without classes have none."""
        pairs = [(features, "") for features in self.settings.evaluate.classifiers]
        of_classes = [row[:2] for row in self.select(pairs) if self.tasks[row[0]].has_classes]
        return [(protocol, *row) for protocol in self.settings.evaluate.protocols for row in of_classes]

    def retrieval_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings that the prototypes of features depend on: the run's, or those of all runs."""
        runs = self.settings.pretrain
        section = runs.run(wildcards.features) if wildcards.features in runs.runs else runs
        return section.model_dump(include={*config.SearchIndexConfig.model_fields})

    def tasks_of(self, protocol: str) -> list[str]:
        """Return the tasks that a protocol evaluates."""
        return [*dict.fromkeys(task for name, task, _ in self.protocols if name == protocol)]

    @property
    def attending(self) -> list[tuple[str, str, str]]:
        """The rows whose classifier attends to regions."""
        return self.select(self.settings.attending)

    @property
    def figures(self) -> dict[str, tuple[str, str]]:
        """The figures of the report: where `snakemake --report` shows them, and under which name."""
        figures: dict[str, tuple[str, str]] = {}
        for task, endpoint in self.tasks.items():
            of = f" ({task})" if len(self.tasks) > 1 else ""
            figures |= {f"{task}/{name}": ("Results", title + of) for name, title in FIGURES[endpoint.kind].items()}
            if "few_shot" in self.settings.evaluate.protocols and endpoint.has_classes:
                figures[f"{task}/few_shot"] = ("Results", f"Few training slides{of}")
            if self.encoders.runs and endpoint.has_classes:
                figures[f"{task}/knn"] = ("Pretraining", f"Labels by k-NN of regions{of}")
        if self.encoders.recipe:
            figures["patch_encoder"] = ("Pretraining", "Patch encoder's curves")
        if self.encoders.runs:
            figures["training"] = ("Pretraining", "Training curves")
            figures["tsne"] = ("Pretraining", "t-SNE of regions")
        return figures

    def fold_encoder(self, features: str, fold: int | str) -> str:
        """Return the region encoder behind features and fold: the fold's own, else the run's; "" for patch features."""
        names, of_fold = self.encoders.of_run.get(features, []), join_encoder_name(features, int(fold))
        return of_fold if of_fold in names else features if names else ""

    def evaluated_folds(self, wildcards: Any) -> list[int]:
        """Return the folds of a job of a row: that of its wildcard, or all."""
        return [int(wildcards.fold)] if hasattr(wildcards, "fold") else [*self.folds]

    def embed_table(self, wildcards: Any) -> str | list[str]:
        """Return the embeddings of a row and fold; nothing for patch features."""
        name = self.fold_encoder(wildcards.features, self.evaluated_folds(wildcards)[0])
        return str(self.paths.embed(name)) if name else []

    def embed_tables(self, wildcards: Any) -> list[str]:
        """Return the embeddings of a row, one table per fold; nothing for patch features."""
        names = [self.fold_encoder(wildcards.features, fold) for fold in self.folds]
        return [str(self.paths.embed(name)) for name in names if name]

    def tokens_ledger(self, wildcards: Any) -> str:
        """Return the ledger of the patch encoder behind a row."""
        return str(self.paths.ledger(encoder=self._compared(wildcards.features)))

    def tokens_dir(self, wildcards: Any) -> str:
        """Return the folder of the tokens behind a row."""
        return str(self.paths.tokens_dir(encoder=self._compared(wildcards.features)))

    def models(self, wildcards: Any) -> list[str]:
        """Return the trained classifiers of a row, one file per fold."""
        return self._models(wildcards.task, wildcards.features, wildcards.classifier)

    def tested(self, wildcards: Any) -> list[str]:
        """Return the predictions of a row's test slides, one table per fold."""
        row = (wildcards.task, wildcards.features, wildcards.classifier)
        return [str(self.paths.predictions(*row, fold)) for fold in self.folds]

    def files(self, task: str, features: str, classifier: str) -> list[str]:
        """Return all files of a row: per fold the predictions and the trained classifier."""
        predictions = [str(self.paths.predictions(task, features, classifier, fold)) for fold in self.folds]
        return predictions + self._models(task, features, classifier)

    def all_predictions(self) -> list[str]:
        """Return the predictions of every row and fold, row by row."""
        return [str(self.paths.predictions(*row, fold)) for row in self.evaluated for fold in self.folds]

    def all_protocols(self) -> list[str]:
        """Return the tables of all evaluations of evaluate.protocols."""
        return [str(getattr(self.paths, protocol)(*row)) for protocol, *row in self.protocols]

    def all_heatmaps(self) -> list[str]:
        """Return the heat maps of every row whose classifier attends to regions."""
        return [str(self.paths.heatmaps(*row)) for row in self.attending]

    @property
    def result_tables(self) -> dict[str, str]:
        """The result table of each cohort that report.tables names, as cohort or cohort/task."""
        names = [name for table in self.settings.report.tables.values() for name in table.cohorts]
        return {name: self._result_table(name) for name in names}

    def joined_tables(self, wildcards: Any) -> list[str]:
        """Return the result tables that report.tables joins: this cohort's, and of the others those that exist.

        Raises:
            ValueError: report.tables names none.
        """
        tables = self.result_tables
        if not tables:
            raise ValueError("report.tables: none is named; cohorts/paper.yaml has those of the paper")
        local = {name for name in tables if name.partition("/")[0] == self.settings.cohort}
        return [path for name, path in tables.items() if name in local or Path(path).exists()]

    def all_external_predictions(self, wildcards: Any) -> list[str]:
        """Return the predictions of every external cohort and task, and the scores of those whose labels are known.

        Raises:
            ValueError: There are no slides to predict, or no labels to predict.
        """
        sheets = self.settings.predict.sheet
        if not sheets:
            raise ValueError(
                "predict.sheet: no slides to predict; write a sheet of columns slide_id, path and name it there, for "
                "example --config predict='{sheet: new.csv}'"
            )
        if not self.tasks:
            raise ValueError("predict: no slide of the cohort has a label to learn from; add labels (settings: labels)")
        predictions = [str(self.paths.external_predictions(name, task)) for name in sheets for task in self.tasks]
        return [*predictions, *self.external_tables, *(str(self.paths.external_page(name)) for name in sheets)]

    @property
    def external_tables(self) -> list[str]:
        """The result tables of external cohorts: one per cohort and task with known labels, if any row predicts it."""
        predicted = {task for task, *_ in self.select(self.settings.predicting)}
        return [str(self.paths.external_table(*pair, "parquet")) for pair in self.scored if pair[1] in predicted]

    def external_tested(self, wildcards: Any) -> list[str]:
        """Return the cohort's own test predictions of all rows that predict external slides: of a task, or of all."""
        task = getattr(wildcards, "task", None)
        rows = [row for row in self.select(self.settings.predicting) if task in (None, row[0])]
        return [str(self.paths.predictions(*row, fold)) for row in rows for fold in self.folds]

    def external_models(self, wildcards: Any) -> list[dict[str, Any]]:
        """Return the models that predict a task of an external cohort: fields of a `predict.PredictionModel` each."""
        models = []
        for task, features, classifier in self.select(self.settings.predicting):
            if task != wildcards.task:
                continue
            names, compared = [self.fold_encoder(features, fold) for fold in self.folds], self._compared(features)
            models.append(
                {
                    "features": features,
                    "classifier": classifier,
                    "models": self._models(task, features, classifier),
                    "embeds": [str(self.paths.external_embed(wildcards.external, name)) for name in names if name],
                    "tokens": str(self.paths.tokens_dir(encoder=compared)),
                    "ledger": str(self.paths.external_ledger(wildcards.external, encoder=compared)),
                }
            )
        return models

    def external_inputs(self, wildcards: Any) -> list[str]:
        """Return the files that a task of an external cohort is predicted from, each once."""
        models = self.external_models(wildcards)
        return [*dict.fromkeys(path for one in models for path in [*one["models"], *one["embeds"], one["ledger"]])]

    def external_embeds(self, wildcards: Any) -> dict[str, tuple[str, str]]:
        """Return, by run that predicts, the embeddings of an external cohort and of the cohort, by one encoder."""
        features = dict.fromkeys(features for _, features, _ in self.select(self.settings.predicting))
        names = {name: self.fold_encoder(name, 0) for name in features if self.fold_encoder(name, 0)}
        pairs = {
            name: (self.paths.external_embed(wildcards.external, encoder), self.paths.embed(encoder))
            for name, encoder in names.items()
        }
        return {name: (str(external), str(cohort)) for name, (external, cohort) in pairs.items()}

    def external_embed_files(self, wildcards: Any) -> list[str]:
        """Return the files of `external_embeds`."""
        return [path for pair in self.external_embeds(wildcards).values() for path in pair]

    def _result_table(self, name: str) -> str:
        """The result table of `cohort/task`, or of a cohort with one task; raises ValueError if it has several."""
        cohort, _, task = name.partition("/")
        paths = CohortPaths(Path("results", cohort))
        if cohort == self.settings.cohort:
            tasks = [*self.tasks]
        else:
            tasks = sorted(path.parent.name for path in paths.page().parent.glob("*/table.parquet"))
        if not task and len(tasks) > 1:
            raise ValueError(
                f"report.tables: cohort {cohort} has tasks {', '.join(tasks)}; write {cohort}/{tasks[0]}, for example"
            )
        return str(paths.result_table(task or next(iter(tasks), "label"), "parquet"))

    def _compared(self, features: str) -> str:
        """The compared patch encoder that features name; "" where they are of the cohort's own."""
        return features if features in self.settings.patch_encoder.compared else ""

    def _models(self, task: str, features: str, classifier: str) -> list[str]:
        return [str(self.paths.classifier(task, features, classifier, fold)) for fold in self.folds]
