"""Which labeled slides of an external cohort test the classifiers, and why others do not."""

from collections.abc import Sequence

import pandas as pd

from slpd_core import artifacts
from slpd_core.artifacts.ids import fold_id
from slpd_core.endpoints.endpoint import Endpoint
from slpd_core.runtime import name_some


def select_scored(
    labels: pd.DataFrame,
    ledger: pd.DataFrame,
    cohort_ledger: pd.DataFrame,
    endpoint: Endpoint,
    *,
    bags: str = "slide",
) -> tuple[pd.DataFrame, list[str]]:
    """Select the labeled slides of an external cohort that test the classifiers.

    Args:
        labels: The external cohort's `labels` table.
        ledger: Its ledger.
        cohort_ledger: Of the cohort that the classifiers were trained on.
        endpoint: Of the task; its classes are those that classifiers know.
        bags: patient if the slides of a patient are one bag: each of them then counts for the prediction.

    Returns:
        The rows of `labels` that are scored; and one line per reason why others are not, or why scores may mislead.
    """
    ids = labels["slide_id"]
    usable = ids.isin(ledger.loc[ledger["status"] == artifacts.OK, "slide_id"])
    known = ledger["slide_fingerprint"].isin(cohort_ledger["slide_fingerprint"])  # slides without one are not usable
    leaked = ids.isin(ledger.loc[known, "slide_id"])
    divided = pd.Series(False, labels.index)
    if bags == "patient":
        leaked |= labels["patient_id"].isin(ledger.loc[known, "patient_id"])
        divided |= labels["patient_id"].isin(endpoint.find_divided_patients(labels))
    classed = labels["label"].isin(endpoint.classes) if endpoint.has_classes else pd.Series(True, labels.index)
    remarks = []
    if not usable.all():
        remarks.append(_not_scored(ids[~usable], "no usable regions (see the ledger)"))
    if (leaked & usable).any():
        whose = ", or are of a patient with such a slide" if bags == "patient" else ""
        why = f"the bytes of a slide of the cohort, on which classifiers are trained{whose}"
        remarks.append(_not_scored(ids[leaked & usable], why))
    if divided.any():
        remarks.append(_not_scored(ids[divided], "a patient whose slides differ in the truth, but are one bag"))
    if not classed.all():
        unknown = ", ".join(sorted({repr(label) for label in labels.loc[~classed, "label"]}))
        remarks.append(_not_scored(ids[~classed], f"a label that no classifier knows ({unknown})"))
        remarks += _suggest_classes(labels.loc[~classed, "label"], endpoint.classes)
    scored = labels[usable & ~leaked & ~divided & classed].reset_index(drop=True)
    both = sorted({*scored["patient_id"]} & {*cohort_ledger["patient_id"]})
    if both:
        remarks.append(
            f"{len(both)} patient ids are in the cohort too: {name_some(both)}; if they are the same people, remove "
            "their slides, which do not test the classifiers"
        )
    return scored, remarks + _find_missing_classes(scored, endpoint)


def _not_scored(ids: pd.Series, why: str) -> str:
    """Say that labeled slides are not scored, since they have something."""
    one = len(ids) == 1
    slides = f"{len(ids)} labeled {'slide' if one else 'slides'} ({name_some(ids)})"
    return f"{slides} {'has' if one else 'have'} {why}; {'it is' if one else 'they are'} not scored"


def _suggest_classes(labels: pd.Series, classes: Sequence[str]) -> list[str]:
    """Labels that are a class but for case or spaces."""
    known = {fold_id(name): name for name in classes}
    pairs = {label: known[fold_id(label)] for label in labels if fold_id(label) in known}
    return [
        f"label {label!r} is {name!r} of the cohort but for case or spaces; write it alike"
        for label, name in pairs.items()
    ]


def _find_missing_classes(scored: pd.DataFrame, endpoint: Endpoint) -> list[str]:
    """Classes that no scored slide has."""
    if not endpoint.has_classes or scored.empty:
        return []
    missing = [name for name in endpoint.classes if name not in {*scored["label"]}]
    if not missing:
        return []
    effect = "scores that compare classes are undefined" if scored["label"].nunique() == 1 else "scores are over fewer"
    return [f"no slide is {name_some(missing)}: {effect}"]
