"""What an export reads and writes: of each slide the artifacts that are there, or that a format needs."""

from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from slpd_core import config
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.slides import SlideFiles


class Exports:
    """The files of an export, as functions of a rule's wildcards.

    Args:
        settings: The whole config.
        slides: The files of the slides.
        encoders: Of the cohort.
        tasks: Names of the tasks of labels.
    """

    def __init__(
        self, settings: config.Config, slides: SlideFiles, encoders: Encoders, tasks: Sequence[str] = ()
    ) -> None:
        self.section, self.slides, self.paths = settings.export, slides, encoders.paths
        self.tasks = [*tasks] if settings.export.has_tables else []
        runs = encoders.runs if self.section.runs is None else self.section.runs
        self.region_encoders = [name for run in runs for name in encoders.of_run[run]]

    def targets(self, wildcards: Any) -> list[str]:
        """Return the tables of files of all formats.

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
        if self.section.needs_features and self.section.what == ["regions"] and not self.region_encoders:
            raise ValueError("export.what: regions have no embeddings without a run in pretrain.runs; name patches")
        if self.section.needs_stems:
            self._check_stems()
        return [str(self.paths.export_table(name)) for name in self.section.formats]

    def embeds(self, wildcards: Any) -> list[str]:
        """Return the embeddings to export: all if a format needs them, else those that are there.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their paths.
        """
        return self._existing(map(self.paths.embed, self._wanted("regions", self.region_encoders)))

    def tokens(self, wildcards: Any) -> list[str]:
        """Return the tokens of a slide, if a format needs them or they are there.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Their path, or none.
        """
        return self._existing(map(self.paths.tokens, self._wanted("patches", [wildcards.slide])))

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

    def _wanted(self, kind: str, names: list[str]) -> list[str]:
        return names if kind in self.section.what else []

    def _existing(self, paths: Any) -> list[str]:
        return [str(path) for path in paths if self.section.needs_features or path.exists()]

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
