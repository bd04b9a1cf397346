"""The encoders of a workflow, by its settings: patch encoders, and region encoders of pretraining runs.

A run trains one region encoder on all slides, or one per fold; its name is the run's, or `{run}.fold{fold}`. Every
method that takes `wildcards` is an input or parameter of a rule, of which it reads `encoder`, a patch encoder of
patch_encoder.compared (without it: the cohort's own), or `region_encoder`.
"""

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


class Encoders:
    """The patch encoders and region encoders of a cohort.

    Args:
        settings: The whole config.
        cohort_slides: Ids of the cohort's slides.
        tasks: Of the cohort, whose folds runs on training slides follow.

    Raises:
        ValueError: A run trains on the slides of folds, but there is no task.
    """

    def __init__(self, settings: config.Config, cohort_slides: Sequence[str] = (), tasks: Sequence[str] = ()) -> None:
        self.settings, self.cohort_slides = settings, cohort_slides
        self.paths = CohortPaths(Path("results", settings.cohort))
        recipe = settings.patch_encoder.recipe
        self.recipe = recipe.model_dump() if recipe else None  # by which the patch encoder is trained, or None
        self.runs = [*settings.pretrain.runs]
        runs = {run: settings.pretrain.run(run) for run in self.runs}
        # The task whose folds a run's encoders follow; "" of a run on all slides.
        self.fold_task = {
            run: self._follow_task(run, tasks) if section.train_on == "train_fold" else ""
            for run, section in runs.items()
        }
        self.of_run = {
            run: [join_encoder_name(run, fold) for fold in range(settings.folds.count)] if task else [run]
            for run, task in self.fold_task.items()
        }
        self.names = [name for names in self.of_run.values() for name in names]
        self.reported = [names[0] for names in self.of_run.values()]  # the region encoder of each run in the report
        self.galleries = [
            str(self.paths.gallery(self.of_run[run][0])) for run, section in runs.items() if section.uses_prototypes
        ]

    def patch_encoder(self, wildcards: Any) -> config.PatchEncoderConfig:
        """Return the settings of a patch encoder."""
        return self._patch_encoders[getattr(wildcards, "encoder", "")]

    def patch_encoder_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings of a patch encoder as plain values."""
        encoder = self.patch_encoder(wildcards)
        return encoder.model_dump(exclude=set() if encoder.source == "features" else {"path", "format"})

    def patch_encoder_recipe(self, wildcards: Any) -> dict[str, Any] | None:
        """Return the settings by which a patch encoder is trained; None where its weights come from elsewhere."""
        return self.recipe if self.patch_encoder(wildcards).source == "dino" else None

    def patch_encoder_files(self, wildcards: Any) -> list[str]:
        """Return the local files that a patch encoder's source reads."""
        return self.patch_encoder(wildcards).files

    def sampled_patches(self, wildcards: Any) -> list[str]:
        """Return the patches, one file per slide, that a patch encoder is trained on; none where it is not trained."""
        slides = self.cohort_slides if self.patch_encoder_recipe(wildcards) else []
        return [str(self.paths.patches(slide)) for slide in slides]

    def patch_history(self, wildcards: Any) -> str | list[str]:
        """Return the training curves of the cohort's own patch encoder; nothing where it is not trained."""
        return str(self.paths.patch_history()) if self.recipe else []

    def pretrain_config(self, wildcards: Any) -> config.PretrainRunConfig:
        """Return the settings of the run that a region encoder belongs to."""
        return self.settings.pretrain.run(split_encoder_name(wildcards.region_encoder)[0])

    def pretrain_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings of a region encoder's run as plain values."""
        return self.pretrain_config(wildcards).model_dump()

    def init_from_path(self, wildcards: Any) -> list[str]:
        """Return the encoder that a run begins with; nothing where it begins with random weights."""
        return [*filter(None, [self.pretrain_config(wildcards).init_from])]

    def fold(self, wildcards: Any) -> int | None:
        """Return the fold whose training slides alone a region encoder sees; None where it sees all slides."""
        return split_encoder_name(wildcards.region_encoder)[1]

    def folds_table(self, wildcards: Any) -> str | list[str]:
        """Return the folds whose training slides a region encoder sees; nothing where it sees all slides."""
        run, fold = split_encoder_name(wildcards.region_encoder)
        return [] if fold is None else str(self.paths.folds(self.fold_task[run]))

    @cached_property
    def _patch_encoders(self) -> dict[str, config.PatchEncoderConfig]:
        """The cohort's own patch encoder as "", and the compared ones by name."""
        encoders = self.settings.patch_encoder
        return {"": encoders.cohort_encoder} | {name: encoders.encoder(name) for name in encoders.compared}

    def _follow_task(self, run: str, tasks: Sequence[str]) -> str:
        """The task whose folds a run follows: the first unless the settings name one."""
        if not tasks:
            raise ValueError(
                f"pretrain.runs.{run}.train_on: train_fold follows the folds of a task, but no slide has a label; add "
                "labels (settings: labels), or set it to all"
            )
        return self.settings.pretrain.fold_task or tasks[0]
