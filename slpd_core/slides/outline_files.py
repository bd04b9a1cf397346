"""The folder of outlines: the file of each slide."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slpd_core.artifacts.ids import fold_id
from slpd_core.runtime import name_some

GEOJSON_SUFFIXES, JSON_SUFFIXES = (".geojson", ".geojson.gz"), (".json", ".json.gz")  # in any case


@dataclass(frozen=True)
class Outlines:
    """The outlines in a folder.

    Attributes:
        paths: By slide id, the file of each slide that has one.
        unmatched: Names of files that belong to no slide.
    """

    paths: dict[str, Path]
    unmatched: tuple[str, ...] = ()

    def describe(self, n_slides: int) -> str:
        """Describe how many slides have an outline, and which files belong to none.

        Args:
            n_slides: Slides of the cohort.

        Returns:
            One line.
        """
        text = f"{len(self.paths):,} of {n_slides:,} slides have an outline"
        return text + (f"; of no slide: {name_some(self.unmatched)}" if self.unmatched else "")


def find_outlines(folder: str | None, slides: Mapping[str, str]) -> Outlines:
    """Find the outlines of slides in a folder by their names: {slide_id}.geojson or .json, also with .gz.

    An outline may also have the name of the slide's file, as TRIDENT names it.

    Args:
        folder: The setting tissue.masks_dir; None has no outlines.
        slides: By id, the files of the slides of all sheets; case does not count.

    Returns:
        The outlines.

    Raises:
        FileNotFoundError: There is no such folder.
        ValueError: A GeoJSON belongs to no slide, or two files to one slide.
    """
    if folder is None:
        return Outlines({})
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"tissue.masks_dir: no folder {folder}; correct it or leave it empty (null)")
    ids = _ids_by_name(slides)
    paths: dict[str, Path] = {}
    unmatched = []
    for path in sorted(path for path in Path(folder).iterdir() if not path.name.startswith(".") and path.is_file()):
        slide_id = ids.get(_read_id(path.name))
        if slide_id is None:
            unmatched.append(path.name)
        elif slide_id in paths:
            raise ValueError(f"tissue.masks_dir: {paths[slide_id]} and {path.name} are of one slide; remove one")
        else:
            paths[slide_id] = path
    misnamed = [name for name in unmatched if fold_id(name).endswith(GEOJSON_SUFFIXES)]
    if misnamed:
        free = next((slide_id for slide_id in slides if slide_id not in paths), "")
        hint = f", for example {free}.geojson" if free else ""
        raise ValueError(
            f"tissue.masks_dir: no slide of a sheet is called {name_some(misnamed)}; name it {{slide_id}}.geojson{hint}"
        )
    return Outlines(paths, tuple(unmatched))


def _ids_by_name(slides: Mapping[str, str]) -> dict[str, str]:
    """Ids of slides by the folded names that an outline may have; a file's name that several slides share is none."""
    stems = Counter(fold_id(Path(path).stem) for path in slides.values())
    by_file = {stem: slide_id for slide_id, path in slides.items() if stems[stem := fold_id(Path(path).stem)] == 1}
    return by_file | {fold_id(slide_id): slide_id for slide_id in slides}


def find_outline(folder: str | None, slide_id: str, slides: Mapping[str, str]) -> Path | None:
    """Find the outline of one slide in a folder that `find_outlines` has checked.

    Args:
        folder: The setting tissue.masks_dir; None has no outlines.
        slide_id: Id of the slide.
        slides: As in `find_outlines`.

    Returns:
        The file; None if the slide has none.
    """
    ids = _ids_by_name(slides)
    paths = Path(folder).iterdir() if folder else ()
    return next((path for path in paths if ids.get(_read_id(path.name)) == slide_id and path.is_file()), None)


def _read_id(name: str) -> str:
    """Folded id of the slide that a file is named after; "" if the name is no outline's."""
    folded = fold_id(name)
    suffix = next((suffix for suffix in (*GEOJSON_SUFFIXES, *JSON_SUFFIXES) if folded.endswith(suffix)), "")
    return fold_id(folded.removesuffix(suffix)) if suffix else ""
