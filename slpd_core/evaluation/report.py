"""The report: tables, figures, and one page that holds them all."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from slpd_core import config, store
from slpd_core.evaluation import figures, metrics
from slpd_core.runtime import generator, log

VERSION = 1
CLASSIFIER_NAMES = {"knn": "KNN (mean)", "mil": "MIL", "dsmil": "DS-MIL", "vit_wsi": "ViT_WSI"}
SHOWN = {"accuracy": "Accuracy", "auc": "AUC"}
THUMBNAIL_PX = 220
MAX_OVERLAYS = 400


@dataclass(frozen=True)
class Row:
    """A row of the table: one classifier on one kind of features, all folds."""

    features: str
    classifier: str
    classes: list[str]
    predictions: pd.DataFrame
    meta: store.Meta

    @property
    def pretraining(self) -> str:
        """The run whose embeddings these are; an en dash for the patch tokens themselves."""
        return "–" if self.features == config.PATCH_FEATURES else self.features


def read_rows(fold_paths: list[Path]) -> list[Row]:
    """Join the folds of every features × classifier, in the order they come."""
    found: dict[tuple[str, str], list[tuple[pd.DataFrame, store.Meta]]] = {}
    for path in fold_paths:
        frame, meta = store.read_table(path, "evaluate")
        found.setdefault((meta["features"], meta["classifier"]), []).append((frame, meta))
    return [
        Row(*key, json.loads(folds[0][1]["classes"]), pd.concat([frame for frame, _ in folds]), folds[0][1])
        for key, folds in found.items()
    ]


def make_table(rows: list[Row]) -> pd.DataFrame:
    """The result table in numbers: features, pretraining, classifier, mean and sd of each score, folds."""
    lines = []
    for row in rows:
        names = {
            "features": "patch" if row.features == config.PATCH_FEATURES else "region",
            "pretraining": row.pretraining,
            "classifier": CLASSIFIER_NAMES[row.classifier],
        }
        lines.append(names | metrics.summary(metrics.fold_scores(row.predictions, row.classes)))
    return pd.DataFrame(lines)


def ranks(table: pd.DataFrame, score: str) -> list[str]:
    """ "best", "second" or "" for each row, by the mean as it is printed, ties alike."""
    shown = table[f"{score}_mean"].round(3)
    order = sorted(shown.dropna().unique(), reverse=True)
    places = dict(zip(order, ("best", "second"), strict=False))
    return [places.get(value, "") for value in shown]


def cell(mean: float, sd: float) -> str:
    """.864±.042 as the paper prints it; – where there is no number."""
    texts = ["–" if value != value else f"{value:.3f}".removeprefix("0") for value in (mean, sd)]
    return texts[0] if texts[0] == "–" else "±".join(texts)


def printed(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The table as people read it: names, and of every score its text and its rank."""
    placed = {score: ranks(table, score) for score in SHOWN}
    return [
        {"features": line["features"], "pretraining": line["pretraining"], "classifier": line["classifier"]}
        | {
            score: {"text": cell(line[f"{score}_mean"], line[f"{score}_sd"]), "rank": placed[score][number]}
            for score in SHOWN
        }
        for number, line in enumerate(table.to_dict("records"))
    ]


def markdown(lines: list[dict[str, Any]]) -> str:
    """The table in Markdown, the best of each score in bold."""
    head = ["Features", "Pretraining", "Classifier", *SHOWN.values()]
    body = [
        [line["features"], line["pretraining"], line["classifier"]]
        + [f"**{line[score]['text']}**" if line[score]["rank"] == "best" else line[score]["text"] for score in SHOWN]
        for line in lines
    ]
    rule = ["---"] * 3 + ["---:"] * len(SHOWN)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, rule, *body])


def latex(lines: list[dict[str, Any]]) -> str:
    """The table in LaTeX (booktabs), the best of each score in bold, the second underlined."""
    commands = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
    body = []
    for line in lines:
        names = [line[key].replace("_", r"\_").replace("–", "--") for key in ("features", "pretraining", "classifier")]
        scores = [commands[line[score]["rank"]] % line[score]["text"].replace("±", r"$\pm$") for score in SHOWN]
        body.append(" & ".join(names + [text.replace("–", "--") for text in scores]) + r" \\")
    head = " & ".join(["Features", "Pretraining", "Classifier", *SHOWN.values()]) + r" \\"
    columns = "lll" + "c" * len(SHOWN)
    parts = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(parts) + "\n"


def draw_roc(rows: list[Row]) -> bytes:
    """The ROC figure of all rows."""
    panels: dict[str, dict[str, np.ndarray]] = {}
    for row in rows:
        parts = [metrics.probability_matrix(part, row.classes) for _, part in row.predictions.groupby("fold")]
        panels.setdefault(CLASSIFIER_NAMES[row.classifier], {})[row.features] = figures.fold_curves(parts)
    return figures.roc(panels)


def draw_tsne(embeds: dict[str, pd.DataFrame], ledger: pd.DataFrame, section: config.Report, seed: int) -> bytes:
    """The t-SNE figure: regions of a few random slides a label, the same slides for every run."""
    rng = generator(seed, "report")
    admitted = ledger[ledger["status"] == store.OK].sort_values("slide_id")
    chosen = {
        slide: label
        for label, slides in admitted.groupby("label")["slide_id"]
        for slide in rng.permutation(slides.to_numpy())[: section.tsne_slides_per_label]
    }
    shown = {run: frame[frame["slide_id"].isin(chosen)] for run, frame in embeds.items()}
    slides = next(iter(shown.values()))["slide_id"].tolist()
    points = {
        run: figures.project(np.stack(frame["embedding"].to_list()), section.tsne_perplexity, seed)
        for run, frame in shown.items()
    }
    return figures.tsne(points, [chosen[slide] for slide in slides], slides)


def data_uri(png: bytes) -> str:
    """A PNG as the address of an inline picture."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def thumbnail_uri(path: Path) -> str:
    """A slide's overlay as a small inline JPEG; empty where there is none."""
    if not path.exists():
        return ""
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def summarise(ledger: pd.DataFrame, folds: pd.DataFrame, rows: list[Row], runs: list[str]) -> dict[str, Any]:
    """The numbers the page opens with."""
    admitted = ledger[ledger["status"] == store.OK]
    return {
        "slides": len(ledger),
        "status": {
            status: int((ledger["status"] == status).sum()) for status in (store.OK, store.EMPTY, store.QUARANTINED)
        },
        "patients": int(admitted["patient_id"].nunique()),
        "labels": admitted["label"].value_counts().sort_index().to_dict(),
        "regions": int(ledger["regions"].sum()),
        "tissue_mm2": float(ledger["tissue_mm2"].sum()),
        "folds": int(folds["fold"].nunique()),
        "runs": runs,
        "classifiers": list(dict.fromkeys(CLASSIFIER_NAMES[row.classifier] for row in rows)),
    }


def render(**values: Any) -> str:
    """The page, everything inline."""
    loader = jinja2.PackageLoader("slpd_core.evaluation", ".")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.get_template("report.html.j2").render(**values)


def run(
    *,
    cohort: str,
    ledger_path: Path,
    folds_path: Path,
    fold_paths: list[Path],
    history_paths: dict[str, Path],
    embed_paths: dict[str, Path],
    overlays_dir: Path,
    out_dir: Path,
    section: config.Report,
    seed: int,
) -> None:
    """Write table.csv, .md and .tex, the figures and index.html."""
    ledger, ledger_meta = store.read_table(ledger_path, "ledger")
    folds, folds_meta = store.read_table(folds_path, "folds")
    rows = read_rows(fold_paths)
    table = make_table(rows)
    lines = printed(table)
    pictures = {"roc": draw_roc(rows)}
    if history_paths:
        embeds = {name: store.read_table(path, "embed")[0] for name, path in embed_paths.items()}
        pictures["training"] = figures.training({name: pd.read_csv(path) for name, path in history_paths.items()})
        pictures["tsne"] = draw_tsne(embeds, ledger, section, seed)
    for name, png in pictures.items():
        with store.replacing(out_dir / f"{name}.png") as part:
            part.write_bytes(png)
    store.write_text(out_dir / "table.csv", table.to_csv(index=False))
    store.write_text(out_dir / "table.md", markdown(lines))
    store.write_text(out_dir / "table.tex", latex(lines))
    slides = ledger.to_dict("records")
    page = render(
        cohort=cohort,
        summary=summarise(ledger, folds, rows, list(history_paths)),
        scores=SHOWN,
        lines=lines,
        pictures={name: data_uri(png) for name, png in pictures.items()},
        slides=slides,
        overlays={
            slide["slide_id"]: thumbnail_uri(overlays_dir / f"{slide['slide_id']}.png")
            for slide in slides[:MAX_OVERLAYS]
        },
        provenance=[ledger_meta, folds_meta, *(row.meta for row in rows)],
    )
    store.write_text(out_dir / "index.html", page)
    log.info("%d rows; %s", len(table), out_dir / "index.html")
