"""Reads and writes every artifact; shapes, dtypes, units and metadata are written down here and checked on read.

Every file is written beside its name and renamed when whole, so a reader never sees half of one. Every artifact carries
`slpd_version`, `stage`, `stage_version`, the config `section` that made it and the `fingerprint` of its inputs.
"""

from slpd_core.artifacts.checksums import read_json, write_json
from slpd_core.artifacts.files import (
    atomic_write,
    check_ledger,
    file_fingerprint,
    fingerprint,
    provenance,
    rebuild_hint,
    write_csv,
    write_text,
)
from slpd_core.artifacts.foreign_files import write_npy, write_npz, write_plain_json, write_tensor
from slpd_core.artifacts.geojson import Area, read_geojson_polygons, read_tissue, write_tissue
from slpd_core.artifacts.hdf5 import create_foreign_h5, create_texts, read_arrays, set_texts, write_arrays
from slpd_core.artifacts.pictures import NUMBERED, read_picture, read_picture_meta, write_picture
from slpd_core.artifacts.schema import (
    EMPTY,
    ENCODER_META,
    OK,
    PATCH_ENCODER_META,
    PRETRAINING_PARTS,
    QUARANTINED,
    REMARK_UNLABELED,
    REMARKS_OF_LABELS,
    REMARKS_OF_STATUS,
    TABLES,
    Meta,
    Regions,
    SlideInfo,
    Tissue,
    Tokens,
)
from slpd_core.artifacts.slide_arrays import (
    copy_tokens,
    create_patches,
    create_tokens,
    open_tokens,
    read_patches,
    read_regions,
    read_tokens,
    trident_attributes,
    write_regions,
)
from slpd_core.artifacts.tables import read_table, write_both, write_table
from slpd_core.artifacts.torch_files import read_torch
from slpd_core.artifacts.weights import read_weights, write_plain_weights, write_weights

__all__ = [
    "EMPTY",
    "ENCODER_META",
    "NUMBERED",
    "OK",
    "PATCH_ENCODER_META",
    "PRETRAINING_PARTS",
    "QUARANTINED",
    "REMARKS_OF_LABELS",
    "REMARKS_OF_STATUS",
    "REMARK_UNLABELED",
    "TABLES",
    "Area",
    "Meta",
    "Regions",
    "SlideInfo",
    "Tissue",
    "Tokens",
    "atomic_write",
    "check_ledger",
    "copy_tokens",
    "create_foreign_h5",
    "create_patches",
    "create_texts",
    "create_tokens",
    "file_fingerprint",
    "fingerprint",
    "open_tokens",
    "provenance",
    "read_arrays",
    "read_geojson_polygons",
    "read_json",
    "read_patches",
    "read_picture",
    "read_picture_meta",
    "read_regions",
    "read_table",
    "read_tissue",
    "read_tokens",
    "read_torch",
    "read_weights",
    "rebuild_hint",
    "set_texts",
    "trident_attributes",
    "write_arrays",
    "write_both",
    "write_csv",
    "write_json",
    "write_npy",
    "write_npz",
    "write_picture",
    "write_plain_json",
    "write_plain_weights",
    "write_regions",
    "write_table",
    "write_tensor",
    "write_text",
    "write_tissue",
    "write_weights",
]
