"""What an export reads and writes: of each slide the artifacts that are there, or that a format needs."""

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from slpd_core import config
from slpd_core.artifacts.paths import split_encoder_name
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.rows import Rows
from slpd_core.workflow.slides import SlideFiles


class Exports:
    """The files of an export, as functions of a rule's wildcards.

    Args:
        settings: The whole config.
        slides: The files of the slides.
        encoders: Of the cohort.
        rows: Of its result tables.
        workflow: Snakemake's, which knows the targets of a run.
    """

    def __init__(
        self, settings: config.Config, slides: SlideFiles, encoders: Encoders, rows: Rows, workflow: Any
    ) -> None:
        self.section, self.of_slides = settings.export, settings.export.of_slides
        self.slides, self.rows, self.paths, self.workflow = slides, rows, encoders.paths, workflow
        self.tasks = [*rows.tasks] if settings.export.has_tables else []
        runs = encoders.runs if self.section.runs is None else self.section.runs
        self.region_encoders = [name for run in runs for name in encoders.of_run[run]]

    def targets(self, wildcards: Any) -> list[str]:
        """Return the tables of files of formats per slide, and the files of formats per run.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths.

        Raises:
            ValueError: No format is named, there is nothing that it could hold, or two slides share a name.
        """
        if not self.section.formats:
            known = ", ".join(config.EXPORT_FORMATS)
            raise ValueError(
                f"export.formats: none is named; there are {known}. For example: --config export='{{formats: [clam]}}'"
            )
        only_regions = not self.section.needs_features("patches") and self.section.needs_features("regions")
        if only_regions and not self.region_encoders:
            raise ValueError(
                "export.what: regions have no embeddings without a run in pretrain.runs; name patches, or a run"
            )
        if self.section.needs_stems:
            self._check_stems()
        of_slides = [str(self.paths.export_table(name)) for name in self.of_slides.formats]
        return of_slides + [path for name in self.section.of_runs for path in self._run_files(name)]

    def attention(self, wildcards: Any) -> list[str]:
        """Return the attention to regions of each task and classifier, where it is there or made in this run.

        Args:
            wildcards: Of a rule; `region_encoder` names one, without it all that are exported count.

        Returns:
            The tables; none for a slide without a format that has them.
        """
        names = [wildcards.region_encoder] if hasattr(wildcards, "region_encoder") else self._described
        runs = {split_encoder_name(name)[0] for name in names}
        return [str(self.paths.attention(*row)) for row in self._attending if row[1] in runs]

    def prototypes(self, wildcards: Any) -> list[str]:
        """Return the prototypes of all encoders whose regions are described.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths.
        """
        return [str(self.paths.prototypes(name)) for name in self._described]

    def predictions(self, wildcards: Any) -> list[str]:
        """Return the predictions of the rows that are there or made in this run, if regions are described.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths, one per row and fold.
        """
        runs = {split_encoder_name(name)[0] for name in self._described}
        return [str(path) for row in self._predicting if row[1] in runs for path in self._of_folds(row)]

    def embeds(self, wildcards: Any) -> list[str]:
        """Return the embeddings to export: all if a format needs them, else those that are there.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths.
        """
        return self._select("regions", map(self.paths.embed, self.region_encoders))

    def tokens(self, wildcards: Any) -> list[str]:
        """Return the tokens of a slide, if a format needs them or they are there.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Their path, or none.
        """
        return self._select("patches", [self.paths.tokens(wildcards.slide)])

    def compared_tokens(self, wildcards: Any) -> list[str]:
        """Return the tokens of a slide by the compared patch encoders that are exported, as `tokens` does.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Their paths.
        """
        names = self.section.encoders
        return self._select("patches", [self.paths.tokens(wildcards.slide, encoder=name) for name in names])

    def regions(self, wildcards: Any) -> str:
        """Return the regions of a slide; with features those that have tokens, since encoding may quarantine a slide.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Their path.
        """
        has_features = self.tokens(wildcards) or self.embeds(wildcards)
        return str((self.paths.encoded if has_features else self.paths.regions)(wildcards.slide))

    def stem(self, wildcards: Any) -> str:
        """Return the name of a slide's file without its suffix.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            The name.
        """
        return Path(self.slides.path(wildcards)).stem

    def _run_files(self, name: str) -> list[str]:
        """Files of a format that has some per run."""
        folder, patterns = self.paths.root / "export" / name, config.EXPORT_FORMATS[name].files.values()
        return [str(folder / text.format(features=encoder)) for encoder in self.region_encoders for text in patterns]

    def _select(self, kind: str, paths: Iterable[Path]) -> list[str]:
        """The features of a kind that are needed, or that are there."""
        needed, held = self.of_slides.needs_features(kind), self.of_slides.holds(kind)
        return [str(path) for path in paths if held and (needed or path.exists())]

    @property
    def _described(self) -> list[str]:
        """Region encoders whose regions are exported slide by slide with what is known of each."""
        return self.region_encoders if "qupath" in self.section.formats else []

    @property
    def _evaluates(self) -> bool:
        """Whether this run makes all rows, exports or not."""
        return not {"all", "evaluation"}.isdisjoint(self.workflow.dag_settings.targets)

    @cached_property
    def _attending(self) -> list[tuple[str, str, str]]:
        """The rows whose attention is there or made in this run."""
        return [row for row in self.rows.attending if self._evaluates or self.paths.attention(*row).exists()]

    @cached_property
    def _predicting(self) -> list[tuple[str, str, str]]:
        """The rows whose predictions are there, of all folds, or made in this run."""
        rows = self.rows.evaluated
        return [row for row in rows if self._evaluates or all(path.exists() for path in self._of_folds(row))]

    def _of_folds(self, row: tuple[str, str, str]) -> list[Path]:
        """The predictions of a row."""
        return [self.paths.predictions(*row, fold) for fold in self.rows.folds]

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """Slides by the name of their file."""
        slides = defaultdict(list)
        for slide in self.slides.cohort:
            slides[Path(self.slides.rows[slide]["path"]).stem].append(slide)
        return slides

    def _check_stems(self) -> None:
        """Raise ValueError where a tool would take two slides for one."""
        shared = {stem: slides for stem, slides in self._stems.items() if len(slides) > 1}
        for stem, slides in shared.items():
            paths = " and ".join(f"{slide} ({self.slides.rows[slide]['path']})" for slide in slides)
            raise ValueError(
                f"export.formats: TRIDENT finds slides by their file's name, and {paths} are both called {stem}; "
                "rename a file, or remove trident"
            )
