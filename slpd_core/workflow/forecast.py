"""Time and memory per job: rules ask for them at assumed speeds, preflight forecasts them at measured ones."""

START_SECONDS = 3.0  # of a job that loads PyTorch

# Assumed speeds: a tenth of an H200's, so that a slower machine still has time enough.
PATCHES_PER_S, REGIONS_PER_S = 300.0, 250.0  # of stage one and of a pretraining run
SLIDES_PER_S = 2.5  # of the slowest classifier on 15,000 patches per slide: 0.12 s, with other jobs beside it
REGIONS_PER_SLIDE = 60  # in TCGA
TISSUE_MINUTES = {"otsu": 3, "grandqc": 5, "hest": 60}  # of a slide, and as many per GB of it

# Memory per job, MB.
TISSUE_MB = {"otsu": 1500, "grandqc": 3000, "hest": 4000}
PATCH_ENCODER_MB, EVALUATE_MB = 8000, 3000
# Tokens stay in memory: 200 KB per region of 16 x 16, so 12.4 GB for the 62,852 of TCGA-NSCLC. The rest is for PyTorch.
# Tokens of a larger cohort are mapped from a file in $TMPDIR (--set-resources pretrain:mem_mb=... avoids that).
PRETRAIN_MB = 20000
ENCODER_MB, MB_PER_WEIGHTS_GB = 3000, 4000  # PyTorch; copies of the weights
# Regions' worth of pixels on their way to the encoder: the level that is read, its mean, copies; per further thread.
REGIONS_IN_FLIGHT, REGIONS_PER_THREAD = 20, 8
READING_THREADS = 8  # of a job of tokens on a GPU

TOKEN_BYTES, COLOR_BYTES = 2, 6  # per number of a token: float16; per patch, beside its token: three float16


def training_hours(n_items: float, epochs: float, items_per_s: float) -> float:
    """Forecast the time of a training.

    Args:
        n_items: Patches, regions or slides per epoch.
        epochs: Epochs.
        items_per_s: Items per second.

    Returns:
        Hours.
    """
    return n_items * epochs / items_per_s / 3600


def pretrain_share(*, per_fold: bool, n_folds: int | None) -> float:
    """Forecast the fraction of the regions that one encoder of a run is trained on.

    Args:
        per_fold: Whether the run trains one encoder per fold, on the fold's training slides.
        n_folds: Folds of a partition; None for imported splits, whose training parts are not known.

    Returns:
        A fraction, 1 for an encoder of all slides or of imported splits.
    """
    return 1 - 1 / max(2, n_folds) if per_fold and n_folds else 1.0


def classifier_epochs(classifier: str, epochs: int) -> int:
    """Count how often a classifier reads each training slide.

    Args:
        classifier: Its name.
        epochs: Epochs of a network.

    Returns:
        The epochs; 1 for classifiers of means.
    """
    return 1 if classifier in ("knn", "logreg") else epochs


def encoding_mb(region_px: int, weights_gb: float, threads: int = 1) -> float:
    """Forecast the memory to encode a slide: PyTorch, regions on their way to the encoder, its weights.

    Args:
        region_px: Side of a region, px.
        weights_gb: Size of the weights' files, GB; 0 for a random encoder.
        threads: Threads that read regions.

    Returns:
        MB.
    """
    n_regions = REGIONS_IN_FLIGHT + REGIONS_PER_THREAD * (threads - 1)
    return ENCODER_MB + n_regions * region_px**2 * 3 / 1e6 + MB_PER_WEIGHTS_GB * weights_gb


def tokens_gb(n_regions: float, patches_per_region: int, token_dim: int, *, with_colors: bool) -> float:
    """Forecast the size of tokens.

    Args:
        n_regions: Regions.
        patches_per_region: Patches of a region.
        token_dim: Length of a token.
        with_colors: Whether the mean color of each patch lies beside its token, as in the files.

    Returns:
        GB.
    """
    patch_bytes = TOKEN_BYTES * token_dim + COLOR_BYTES * with_colors
    return n_regions * patches_per_region * patch_bytes / 1e9
