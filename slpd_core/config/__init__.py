"""config.yaml as frozen pydantic sections, one per stage, validated when the workflow is parsed.

There are no defaults here: config.yaml is the only place of a value. An installed package carries a copy of it.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import ValidationError, model_validator

from slpd_core.config.arguments import check_arguments
from slpd_core.config.base import (
    ATTENTION,
    CLASSIFIERS,
    COLOR_FEATURES,
    NETWORK_CLASSIFIERS,
    PATCH_FEATURES,
    PLAIN_NAME,
    TOKEN_FEATURES,
    WHITENED_FEATURES,
    Section,
    Seed,
    check_size,
    problems,
    raise_problems,
)
from slpd_core.config.evaluation import (
    ClassifierTrainingConfig,
    CohortTableConfig,
    EvaluateConfig,
    FewShotConfig,
    FoldsConfig,
    HeatmapsConfig,
    PredictConfig,
    ReportConfig,
    ReportPageConfig,
)
from slpd_core.config.export import EXPORT_FORMATS, ExportConfig
from slpd_core.config.labels import ExternalLabelsConfig, LabelsConfig
from slpd_core.config.methods import MethodsConfig, NamedEncoderConfig
from slpd_core.config.patch_encoder import PatchEncoderBaseConfig, PatchEncoderConfig, PatchEncodersConfig
from slpd_core.config.pretraining import (
    PRESETS,
    EmbedConfig,
    GalleryConfig,
    PretrainConfig,
    PretrainRunConfig,
    scale_crops,
)
from slpd_core.config.renamed import find_renamed
from slpd_core.config.search import RankingConfig, SearchConfig, SearchIndexConfig
from slpd_core.config.slides import (
    LedgerConfig,
    PatchesConfig,
    RegionsConfig,
    RegionsStageConfig,
    SheetConfig,
    TissueConfig,
    TissueOutlineConfig,
    TissueSegmentationConfig,
    TokenEncodingConfig,
    TokensConfig,
)
from slpd_core.config.ssl import SelfDistillationConfig, StageOneConfig

__all__ = [
    "ATTENTION",
    "CLASSIFIERS",
    "COLOR_FEATURES",
    "EXPORT_FORMATS",
    "NETWORK_CLASSIFIERS",
    "PATCH_FEATURES",
    "PRESETS",
    "TOKEN_FEATURES",
    "WHITENED_FEATURES",
    "ClassifierTrainingConfig",
    "CohortTableConfig",
    "Config",
    "EmbedConfig",
    "ExportConfig",
    "ExternalLabelsConfig",
    "FewShotConfig",
    "FoldsConfig",
    "GalleryConfig",
    "HeatmapsConfig",
    "LabelsConfig",
    "LedgerConfig",
    "MethodsConfig",
    "NamedEncoderConfig",
    "PatchEncoderBaseConfig",
    "PatchEncoderConfig",
    "PatchesConfig",
    "PretrainRunConfig",
    "RankingConfig",
    "RegionsConfig",
    "RegionsStageConfig",
    "ReportConfig",
    "SearchIndexConfig",
    "SelfDistillationConfig",
    "SheetConfig",
    "StageOneConfig",
    "TissueOutlineConfig",
    "TissueSegmentationConfig",
    "TokenEncodingConfig",
    "TokensConfig",
    "check_arguments",
    "default_config",
    "joined_tables",
    "load",
    "scale_crops",
]


class Config(Section):
    """All settings of config.yaml."""

    cohort: str
    seed: Seed
    tracker: Literal["wandb", "mlflow"] | None
    sheet: SheetConfig
    tissue: TissueConfig
    regions: RegionsStageConfig
    patches: PatchesConfig
    patch_encoder: PatchEncodersConfig
    tokens: TokensConfig
    ledger: LedgerConfig
    pretrain: PretrainConfig
    embed: EmbedConfig
    gallery: GalleryConfig
    labels: LabelsConfig
    folds: FoldsConfig
    evaluate: EvaluateConfig
    heatmaps: HeatmapsConfig
    predict: PredictConfig
    report: ReportPageConfig
    search: SearchConfig
    export: ExportConfig

    @property
    def grid(self) -> int:
        """Patches along a side of a region (paper: 16)."""
        return self.regions.size_px // self.patch_encoder.patch_px

    @property
    def optional_packages(self) -> dict[str, tuple[str, str]]:
        """Modules that these settings need and no installation brings by itself, to the setting and the extra."""
        needed: dict[str, tuple[str, str]] = {}
        if self.tracker:
            needed[self.tracker] = (f"tracker: {self.tracker}", self.tracker)
        if self.tissue.method == "grandqc":
            needed["segmentation_models_pytorch"] = ("tissue.method: grandqc", "grandqc")
        return needed

    @property
    def attending(self) -> list[tuple[str, str]]:
        """The pairs of features and classifier that weight the regions of a slide."""
        rows = self.evaluate.classifiers.items()
        return [(run, name) for run, names in rows if run in self.pretrain.runs for name in names if name in ATTENTION]

    @property
    def searched_run(self) -> str | None:
        """The run by which slides are searched: search.run, the reference row's, or the last; None without runs."""
        reference = (self.report.reference or "").partition("/")[0]
        default = reference if reference in self.pretrain.runs else next(reversed(self.pretrain.runs), None)
        return self.search.run or default

    @property
    def predicting(self) -> list[tuple[str, str]]:
        """The pairs of features and classifier that predict new slides.

        Where predict.classifiers is null: those of pretraining runs, or all where there is no run.
        """
        rows = self.predict.classifiers
        if rows is None:
            of_runs = {name: names for name, names in self.evaluate.classifiers.items() if name in self.pretrain.runs}
            rows = of_runs or self.evaluate.classifiers
        return [(features, classifier) for features, names in rows.items() for classifier in names]

    @property
    def methods(self) -> MethodsConfig:
        """The settings that the report's methods paragraph names."""
        encoders, rows = self.patch_encoder, self.evaluate.classifiers
        runs = {name: self.pretrain.run(name) for name in self.pretrain.runs}
        return MethodsConfig(
            tissue=self.tissue.method,
            thumbnail_mpp=self.tissue.thumbnail_mpp,
            regions=self.regions.selection,
            coordinates=self.regions.format,
            stain_normalization=self.tokens.stain_normalization,
            encoder=NamedEncoderConfig.from_encoder(encoders.stated_name(), encoders.cohort_encoder),
            compared={
                name: NamedEncoderConfig.from_encoder(encoders.stated_name(name), encoders.encoder(name))
                for name in encoders.compared
                if name in rows
            },
            recipe=encoders.recipe,
            patches_per_slide=self.patches.patches_per_slide if encoders.recipe else None,
            runs={
                name: run.model_copy(update={"init_from": Path(run.init_from).name if run.init_from else None})
                for name, run in runs.items()
            },
            training=self.evaluate.training,
        )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        lines = []
        if not PLAIN_NAME.fullmatch(self.cohort):
            lines.append(f"cohort: {self.cohort!r} cannot name a folder; use letters, digits, - and _")
        size_px = self.regions.size_px
        for key, encoder in self.patch_encoder.encoders().items():
            if size_px % encoder.patch_px:
                lines.append(
                    f"regions.size_px: {size_px} is not a multiple of {key}.patch_px {encoder.patch_px}; make it one"
                )
        lines += self._problems_of_crops()
        for name in [run for run in self.pretrain.runs if run in self.patch_encoder.compared]:
            lines.append(f"patch_encoder.compared.{name}: names a run of pretrain.runs too; rename one of them")
        task = self.pretrain.fold_task
        if task is not None and task not in (self.labels.tasks or ["label"]):
            lines.append(f"pretrain.fold_task: {task!r} is no task of labels.tasks; name one, or null for the first")
        if self.evaluate.training.select == "val" and not self.folds.splits_dir and not self.folds.val_fraction:
            lines.append("evaluate.select: val needs validation slides; set folds.val_fraction: 0.1, or select: last")
        named = (
            ("search.run", [*filter(None, [self.search.run])], "run of pretrain.runs", self.pretrain.runs),
            ("export.runs", self.export.runs or [], "run of pretrain.runs", self.pretrain.runs),
            ("export.encoders", self.export.encoders, "encoder of patch_encoder.compared", self.patch_encoder.compared),
        )
        for key, names, of, known in named:
            there = ", ".join(known) or "none"
            unknown = [name for name in names if name not in known]
            lines += [f"{key}: {name!r} is no {of} ({there}); correct the name" for name in unknown]
        raise_problems(lines + self._problems_of_rows())
        return self

    def _problems_of_crops(self) -> list[str]:
        """Crops that do not fit the grid; those without a size are fitted to it first."""
        self.pretrain.fit_grid(max(1, self.grid))
        lines = []
        for name, overrides in self.pretrain.runs.items():

            def above(*keys: str, name: str = name, overrides: Mapping[str, Any] = overrides) -> tuple[str, ...]:
                return ("pretrain", "runs", name) if {*keys, "preset"} & overrides.keys() else ("pretrain",)

            try:
                run = self.pretrain.run(name)
            except ValidationError as error:
                lines += problems(error, *above("global_crop_size", "local_crop_size"))
                continue
            for key in ("global_crop_size", "cluster_crop"):
                crop = getattr(run, key)
                if crop and crop > self.grid:
                    where = ".".join((*above(key), key))
                    lines.append(f"{where}: {crop} exceeds the {self.grid} patches along a region; lower it, or null")
        return lines

    def _problems_of_rows(self) -> list[str]:
        lines = []
        patches = [COLOR_FEATURES, PATCH_FEATURES, *self.patch_encoder.compared]
        known = [*patches, *TOKEN_FEATURES, *self.pretrain.runs]
        for features, names in self.evaluate.classifiers.items():
            if features not in known:
                lines.append(
                    f"evaluate.classifiers.{features}: unknown features, there are {', '.join(known)}; add a run to "
                    f"pretrain.runs or an encoder to patch_encoder.compared, or remove the row by {features}: null"
                )
            of_patches = features in patches and features not in self.pretrain.runs
            if of_patches and "vit_wsi" in names and not self.evaluate.vit_wsi_on_patches:
                lines.append(
                    f"evaluate.classifiers.{features}: vit_wsi attends from each patch of a slide to all others, tens "
                    "of thousands; remove it there, as the paper does, or set evaluate.vit_wsi_on_patches: true"
                )
            if len(set(names)) < len(names):
                lines.append(
                    f"evaluate.classifiers.{features}: {', '.join(names)} names a classifier twice; remove one"
                )
        for features, names in (self.predict.classifiers or {}).items():
            for name in names:
                if name not in self.evaluate.classifiers.get(features, []):
                    lines.append(
                        f"predict.classifiers.{features}: evaluate.classifiers does not train {name} on it; add it"
                    )
        rows = [f"{features}/{name}" for features, names in self.evaluate.classifiers.items() for name in names]
        if rows and self.report.reference not in (None, *rows):
            lines.append(
                f"report.reference: {self.report.reference!r} is no row of evaluate.classifiers; name one, such as "
                f"{rows[-1]}, or null for the last of the table"
            )
        if not self.evaluate.classifiers:
            lines.append("evaluate.classifiers: none is left; keep one row")
        return lines


def load(values: Mapping[str, Any]) -> Config:
    """Validate all settings, config.yaml and its overlays.

    Args:
        values: Plain values, as YAML gives them.

    Returns:
        The settings of every stage.

    Raises:
        ValueError: One line per problem.
    """
    check_size(values)
    lines = [*find_renamed(values)]
    if not lines:
        try:
            return Config.model_validate(dict(values))
        except ValidationError as error:
            lines = problems(error)
    raise ValueError("\n  ".join(["settings:", *lines]))


@cache
def default_config() -> Config:
    """Load the settings of config.yaml as they are: the paper's values.

    Returns:
        The settings of every stage.
    """
    shipped = Path(__file__).with_name("config.yaml")  # of an installed package; a checkout has it at the top
    path = shipped if shipped.is_file() else Path(__file__).parents[2] / "config.yaml"
    return load(yaml.safe_load(path.read_text(encoding="utf-8")))


def joined_tables(values: Mapping[str, Any]) -> dict[str, CohortTableConfig]:
    """Validate the tables over cohorts of `report.tables`.

    Args:
        values: Plain values by the name of the table.

    Returns:
        The tables by name.
    """
    return {name: CohortTableConfig.model_validate(table) for name, table in values.items()}
