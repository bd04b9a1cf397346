"""Files of other tools that slides take their regions and tokens from."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from slpd_core import config
from slpd_core.artifacts.coordinate_files import COORDINATE_ENDINGS, FEATURE_ENDINGS, find_slide_file
from slpd_core.workflow.encoders import Encoders
from slpd_core.workflow.slides import SlideFiles


class ImportedFiles:
    """Another tool's file of each slide, as functions of a rule's wildcards.

    It is named after the slide's id, or after its file without the ending.

    Args:
        settings: The whole config.
        slides: The files of the slides.
        encoders: Of the cohort.

    Raises:
        ValueError: A file would be of two slides.
    """

    def __init__(self, settings: config.Config, slides: SlideFiles, encoders: Encoders) -> None:
        self.regions, self.slides, self.encoders = settings.regions, slides, encoders
        self.has_coordinates = settings.regions.coordinates is not None
        if slides.planning:
            self._require_distinct(self.coordinates, "")
            for encoder in ("", *settings.patch_encoder.compared):
                self._require_distinct(self.features, encoder)

    def coordinates(self, wildcards: Any) -> str | None:
        """Return the coordinates of a slide's regions.

        Args:
            wildcards: Of a rule; `slide`.

        Returns:
            The file; None where regions are chosen here, or the slide has none.
        """
        return self._find(wildcards, self.regions.coordinates, COORDINATE_ENDINGS, self.regions.format)

    def features(self, wildcards: Any) -> str | None:
        """Return the features that a slide's tokens are taken from.

        Args:
            wildcards: Of a rule; `slide`, and `encoder` of a compared patch encoder.

        Returns:
            The file; None where the slide is encoded here, or has none.
        """
        encoder = self.encoders.patch_encoder(wildcards)
        return self._find(wildcards, encoder.path, FEATURE_ENDINGS, encoder.format)

    def features_of_one(self, wildcards: Any) -> list[str | None]:
        """Return the features of a slide as a list, as jobs of several slides have them."""
        return [self.features(wildcards)]

    def _require_distinct(self, find: Callable[[Any], str | None], encoder: str) -> None:
        """Raise ValueError where a file is found for two slides, of one by its id and of one by its file's name."""
        slide_of: dict[str, str] = {}
        for slide in self.slides.rows:
            path = find(SimpleNamespace(slide=slide, encoder=encoder))
            if path is not None and (other := slide_of.setdefault(path, slide)) != slide:
                raise ValueError(
                    f"{path}: its name is that of slide {other} and of slide {slide}, by id or by the slide's file; "
                    "name the files after the slides' ids"
                )

    def _find(
        self, wildcards: Any, folder: str | None, endings: Mapping[str, Sequence[str]], format: str | None
    ) -> str | None:
        if folder is None or format is None:
            return None
        names = (wildcards.slide, Path(self.slides.path(wildcards)).stem)
        path = find_slide_file(Path(folder), names, endings[format])
        return None if path is None else str(path)
