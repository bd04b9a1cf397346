"""The slides of a workflow: their files, and texts that change with them."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import config
from slpd_core.report.pseudonyms import number_names
from slpd_core.slides.outline_files import Outlines, find_outline, find_outlines
from slpd_core.workflow.tracking import file_state
from slpd_core.wsi import identity


class SlideFiles:
    """The files of the slides of a cohort and of external ones, as functions of a rule's wildcards.

    Args:
        settings: The whole config.
        sheet: The cohort's sheet, as `read_sheet` returns it.
        external: By name, the sheets of external cohorts, whose slides are predicted.
        failures: By slide, how often it could not be read.
        planning: Whether this process plans the workflow; that of a job looks at its own slide only.
    """

    def __init__(
        self,
        settings: config.Config,
        sheet: pd.DataFrame,
        external: Mapping[str, pd.DataFrame],
        failures: Mapping[str, int],
        *,
        planning: bool,
    ) -> None:
        self.settings, self.failures, self.planning = settings, failures, planning
        self.cohort = [*sheet["slide_id"]]
        # A parameter of rules whose pictures name slides; there is none, and nothing is redrawn, without pseudonyms.
        self.shown_names: dict[str, dict[str, str]] = {}
        if settings.report.pseudonyms:
            self.shown_names["shown_names"] = {**number_names(sheet, seed=settings.seed).slides}
        self.external = {name: [*table["slide_id"]] for name, table in external.items()}
        records = [row for table in (sheet, *external.values()) for row in table.to_dict("records")]
        self.rows: dict[str, dict[str, Any]] = {str(row["slide_id"]): dict(row) for row in records}
        self._paths = {slide: str(row["path"]) for slide, row in self.rows.items()}
        self._outline_paths: dict[str, Path | None] = {}

    def path(self, wildcards: Any) -> str:
        """Return the file of a slide.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Its path, as the sheet states it.

        Raises:
            ValueError: No sheet has the slide.
        """
        if wildcards.slide not in self.rows:
            raise ValueError(f"{wildcards.slide}: no such slide in {self.settings.sheet.path}")
        return str(self.rows[wildcards.slide]["path"])

    def paths(self, wildcards: Any) -> list[str]:
        """Return the file of a slide as a list, as jobs of several slides have them.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Its path, as the sheet states it.
        """
        return [self.path(wildcards)]

    def external_ids(self, wildcards: Any) -> list[str]:
        """Return the slides of an external cohort.

        Args:
            wildcards: Of a rule; `external`.

        Returns:
            Their ids.
        """
        return self.external[wildcards.external]

    def cohort_paths(self, wildcards: Any) -> dict[str, str]:
        """Return the files of the cohort's slides.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            By slide, its path.
        """
        return {slide: self.rows[slide]["path"] for slide in self.cohort}

    def mpp(self, wildcards: Any) -> float | None:
        """Return the sheet's um/px of a slide.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            um/px; None where the sheet states none.
        """
        mpp = float(self.rows[wildcards.slide]["mpp"])
        return None if mpp != mpp else mpp

    def state(self, wildcards: Any) -> str:
        """Describe the files of a slide; the text changes with them, and with each failure to read them.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Names, sizes and dates.
        """
        text, failures = self._describe(wildcards.slide)[0], self.failures.get(wildcards.slide, 0)
        return f"{text}; not read {failures} time(s)" if failures else text

    def gigabytes(self, wildcards: Any) -> float:
        """Return the size of a slide's files.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            GB.

        Raises:
            ValueError: No sheet has the slide.
        """
        self.path(wildcards)  # refuses a slide that no sheet has
        return self._describe(wildcards.slide)[1] / 1e9

    @cached_property
    def outlines(self) -> Outlines:
        """The outlines of all slides, and the files in their folder that are of none."""
        return find_outlines(self.settings.tissue.masks_dir, self._paths)

    def outline_path(self, wildcards: Any) -> Path | None:
        """Return the outline by hand of a slide.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Its path; None where the slide has none.
        """
        slide, folder = wildcards.slide, self.settings.tissue.masks_dir
        if slide not in self._outline_paths:
            path = self.outlines.paths.get(slide) if self.planning else find_outline(folder, slide, self._paths)
            self._outline_paths[slide] = path
        return self._outline_paths[slide]

    def outline_state(self, wildcards: Any) -> str | None:
        """Describe the outline of a slide by its size and date, or the weights of the network that segments it.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            The text; None where the slide has no outline and no network segments it.
        """
        path = self.outline_path(wildcards) or self.settings.tissue.weights
        return None if path is None else file_state(path)

    def outline_section(self, wildcards: Any) -> dict[str, Any] | None:
        """Return the settings by which the outline of a slide is read.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            Settings as a dict; None where the slide has no outline.
        """
        return self.settings.tissue.outline.model_dump() if self.outline_path(wildcards) else None

    def unmatched_outlines(self, wildcards: Any) -> list[str]:
        """Return the files in the folder of outlines that are of no slide.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Their names.
        """
        return [*self.outlines.unmatched]

    @cached_property
    def _descriptions(self) -> dict[str, tuple[str, int]]:
        """Texts and bytes of all slides as they are when first looked at: a disk may be away later."""
        paths = {slide: Path(row["path"]) for slide, row in self.rows.items()}
        return identity.describe_files(paths) if self.planning else {}

    def _describe(self, slide: str) -> tuple[str, int]:
        """The text and bytes of one slide; a job's process looks at no other."""
        if slide not in self._descriptions:
            self._descriptions.update(identity.describe_files({slide: Path(self.rows[slide]["path"])}))
        return self._descriptions[slide]
