"""Export: the regions, patches, embeddings and tokens of one slide, in each format that the settings name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from slpd_core import artifacts, config
from slpd_core.export.clam import write_clam
from slpd_core.export.exported_slide import ExportedSlide, FeatureSet, read_exported_slide
from slpd_core.export.hs2p import write_hs2p
from slpd_core.export.qupath import write_qupath
from slpd_core.export.slide2vec import write_slide2vec
from slpd_core.export.stamp import write_stamp
from slpd_core.export.torchmil import write_torchmil
from slpd_core.export.trident import write_trident
from slpd_core.runtime import log

VERSION = 1
WRITERS: dict[str, Callable[[Mapping[str, Path], ExportedSlide, FeatureSet], None]] = {
    "trident": write_trident,
    "clam": write_clam,
    "stamp": write_stamp,
    "slide2vec": write_slide2vec,
    "hs2p": write_hs2p,
    "torchmil": write_torchmil,
    "qupath": write_qupath,
}


def locate_files(files: Mapping[str, str], folder: Path, slide: ExportedSlide, features: FeatureSet) -> dict[str, Path]:
    """Name the files of a slide and feature set.

    Args:
        files: Of a `config.EXPORT_FORMATS`.
        folder: Of the format.
        slide: The slide.
        features: Its squares and their vectors.

    Returns:
        Paths by part of the format.
    """
    names = {"slide": slide.slide.slide_id, "stem": slide.path.stem, "features": features.name}
    names |= {"kind": features.kind, "grid": features.grid_name}
    return {part: folder / pattern.format(**names) for part, pattern in files.items()}


def write_format(name: str, folder: Path, slide: ExportedSlide) -> list[Path]:
    """Write a slide in a format; files of an earlier export of the same names are removed first.

    Args:
        name: Of the format.
        folder: Of the format.
        slide: The slide.

    Returns:
        The files; none of a quarantined slide, nor of one without regions in most formats.
    """
    fmt = config.EXPORT_FORMATS[name]
    sets = [features for features in slide.sets if features.kind in fmt.kinds]
    located = [locate_files(fmt.files, folder, slide, features) for features in sets]
    every_path = dict.fromkeys(path for paths in located for path in paths.values())
    for path in every_path:
        path.unlink(missing_ok=True)
    for i, (paths, features) in enumerate(zip(located, sets, strict=True)):
        holds = features.squares.slide.status == artifacts.OK and (len(features.squares.coords) or fmt.holds_empty)
        if holds and paths not in located[:i]:  # corners alone, which several sets share, are those of the first
            WRITERS[name](paths, slide, features)
    return [path for path in every_path if path.exists()]


def _describe_status(slide: ExportedSlide) -> tuple[str, str]:
    """Status of a slide as in the ledger, and what is to be known about its files."""
    if slide.slide.status != artifacts.OK:
        return slide.slide.status, slide.slide.reason
    if not len(slide.sets[0].squares.coords):
        return artifacts.EMPTY, "no regions, so it has no features"
    missing = dict.fromkeys(features.kind for features in slide.sets if features.vectors is None)
    reasons = [f"corners of {' and '.join(missing)} alone: there are no features yet"] if missing else []
    of_encoders = [(features.name, features.squares.slide) for features in slide.sets]
    reasons += [f"nothing of {name}: {facts.reason}" for name, facts in of_encoders if facts.status != artifacts.OK]
    return artifacts.OK, "; ".join(reasons)


def _describe(
    features: FeatureSet, prototypes: Mapping[str, Path], attention_paths: Sequence[Path], predictions: Sequence[Path]
) -> FeatureSet:
    """The feature set with what is known of its regions; patches as they are."""
    from slpd_core.export.region_table import describe_regions

    if features.name not in prototypes:
        return features
    return describe_regions(features, prototypes[features.name], attention_paths, predictions)


def run(
    *,
    regions_path: Path,
    tissue_path: Path,
    tokens_path: Path | None,
    embed_paths: Sequence[Path],
    slide_path: Path,
    out_dir: Path,
    record_path: Path,
    section: config.ExportConfig,
    patch_px: int,
    compared_paths: Sequence[Path] = (),
    prototypes_paths: Sequence[Path] = (),
    attention_paths: Sequence[Path] = (),
    prediction_paths: Sequence[Path] = (),
) -> None:
    """Write a slide in each format, and at last the record of its files.

    Args:
        regions_path, tissue_path, tokens_path, embed_paths, slide_path: As in `read_exported_slide`.
        out_dir: Folder of the formats' folders.
        record_path: A JSON: slide_id, status, reason and the names of its files by format.
        section: Of the config.
        patch_px: Side of a patch at the target um/px.
        compared_paths: As in `read_exported_slide`.
        prototypes_paths: Of all region encoders, .../{region_encoder}/prototypes.h5, for formats that describe regions.
        attention_paths, prediction_paths: As in `describe_regions`.

    Raises:
        ValueError: Features are of other regions.
    """
    slide = read_exported_slide(
        regions_path=regions_path,
        tissue_path=tissue_path,
        tokens_path=tokens_path,
        embed_paths=embed_paths,
        slide_path=slide_path,
        kinds=[kind for kind in section.what if section.holds(kind)],
        patch_px=patch_px,
        compared_paths=compared_paths,
    )
    if prototypes_paths:
        paths = {path.parent.name: path for path in prototypes_paths}
        described = [_describe(one, paths, attention_paths, prediction_paths) for one in slide.sets]
        slide = replace(slide, sets=tuple(described), from_bounds=section.qupath_origin == "bounds")
    files = {name: write_format(name, out_dir / name, slide) for name in section.formats}
    status, reason = _describe_status(slide)
    if status != artifacts.OK:
        log.warning("%s: %s", status, reason)
    record = {
        "slide_id": slide.slide.slide_id,
        "status": status,
        "reason": reason,
        "files": {
            name: [path.relative_to(out_dir / name).as_posix() for path in paths] for name, paths in files.items()
        },
    }
    artifacts.write_json(
        record_path, record | artifacts.provenance("export", VERSION, section.model_dump(), *slide.inputs)
    )
    log.info("%d files, %s", sum(map(len, files.values())), reason or status)
