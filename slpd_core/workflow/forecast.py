"""How long training takes: rules ask for time by it at assumed rates, preflight foretells it at measured ones."""

# Assumed where nothing is measured: a tenth of what an H200 does.
PATCHES_PER_S, REGIONS_PER_S = 300, 250
SLIDES_PER_S = 2.5  # of the slowest classifier on 15,000 patches each: 0.12 s, with others beside it
REGIONS_PER_SLIDE = 60  # in TCGA


def training_hours(n_items: float, epochs: float, items_per_s: float) -> float:
    """Return the hours of a training.

    Args:
        n_items: Patches, regions or slides of an epoch.
        epochs: Epochs.
        items_per_s: Items per second.
    """
    return n_items * epochs / items_per_s / 3600
