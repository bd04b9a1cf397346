"""What a search is about: slides of the sheets by id, and new ones by file."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from slpd_core import config
from slpd_core.artifacts.ids import fold_id, normalize_id
from slpd_core.artifacts.paths import CohortPaths, join_encoder_name, split_encoder_name
from slpd_core.wsi.slide_folder import slide_name

NEW_SLIDES = "search"  # the external cohort of slides that are in no sheet


class Searches:
    """The slides of search.slides, and the files of a search.

    Args:
        settings: The whole config.
        cohort: The cohort's sheet.
        external: By name, the sheets of external cohorts.

    Raises:
        ValueError: One of search.slides is neither a slide of a sheet nor a file, or a file has the name of a slide.
    """

    def __init__(self, settings: config.Config, cohort: pd.DataFrame, external: Mapping[str, pd.DataFrame]) -> None:
        self.settings, self.paths = settings, CohortPaths(Path("results", settings.cohort))
        self._path_of: dict[str, str] = dict(zip(cohort["slide_id"], cohort["path"], strict=True))
        self._external_of: dict[str, str] = {}
        for name, sheet in external.items():
            self._path_of |= dict(zip(sheet["slide_id"], sheet["path"], strict=True))
            self._external_of |= dict.fromkeys(sheet["slide_id"], name)
        new: dict[str, str] = {}
        self.queries = [*dict.fromkeys(self._identify(text, new) for text in settings.search.slides)]
        self._external_of |= dict.fromkeys(new, NEW_SLIDES)
        self._path_of |= new
        if new and NEW_SLIDES in external:
            raise ValueError(
                f"predict.sheet.{NEW_SLIDES}: the new slides of search.slides go by this name; give the cohort another"
            )
        self.new_slides = {NEW_SLIDES: [*new.values()]} if new else {}

    def _identify(self, text: str, new: dict[str, str]) -> str:
        """The id of one of search.slides; a file in no sheet is added to the new ones."""
        if (slide := normalize_id(text)) in self._path_of:
            return slide
        path = os.path.expanduser(text)
        if not os.path.exists(path):
            close = get_close_matches(fold_id(text), known := {fold_id(name): name for name in self._path_of})
            near = " or ".join(known[name] for name in close)
            hint = f"did you mean {near}?" if close else "name a slide of the sheet, or a file"
            raise ValueError(f"search.slides: {text!r} is no slide of the cohort and no file; {hint}")
        slide = normalize_id(slide_name(Path(path)))
        if slide in self._path_of and os.path.samefile(path, self._path_of[slide]):
            return slide
        if slide in self._path_of or new.get(slide, path) != path:
            other = self._path_of.get(slide) or new[slide]
            raise ValueError(f"search.slides: {path} has the name of slide {slide} ({other}); rename the file")
        new[slide] = path
        return slide

    @property
    def _queried_cohorts(self) -> list[str]:
        """The external cohorts of queries."""
        return [*dict.fromkeys(self._external_of[slide] for slide in self.queries if slide in self._external_of)]

    def index_section(self, wildcards: Any) -> dict[str, Any]:
        """Return the settings that the prototypes of a run's slides depend on.

        Args:
            wildcards: Of a rule; `region_encoder`.

        Returns:
            Plain values.
        """
        run = self.settings.pretrain.run(split_encoder_name(wildcards.region_encoder)[0])
        return run.model_dump(include={*config.SearchIndexConfig.model_fields})

    def query_ledgers(self, wildcards: Any) -> list[str]:
        """Return the ledgers of queries that are not the cohort's."""
        return [str(self.paths.external_ledger(name)) for name in self._queried_cohorts]

    def query_embeds(self, wildcards: Any) -> list[str]:
        """Return the embeddings of queries that are not the cohort's, by `region_encoder`."""
        return [str(self.paths.external_embed(name, wildcards.region_encoder)) for name in self._queried_cohorts]

    def slide_paths(self, wildcards: Any) -> dict[str, str]:
        """Return the files of all slides that may be shown."""
        return self._path_of

    def targets(self, wildcards: Any) -> str:
        """Return the page of the search.

        Args:
            wildcards: Of a rule; not read.

        Returns:
            Its path.

        Raises:
            ValueError: No slide is named, or there is no run.
        """
        if not self.queries:
            raise ValueError(
                "search.slides: none is named; name slides of the cohort or files, for example --config "
                "search='{slides: [slide-7, new.svs]}'"
            )
        run = self.settings.searched_run
        if run is None:
            raise ValueError("search: slides are compared by the embeddings of a run; add one to pretrain.runs")
        per_fold = self.settings.pretrain.run(run).train_on == "train_fold"
        return str(self.paths.search_page(join_encoder_name(run, 0 if per_fold else None)))
