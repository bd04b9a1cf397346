"""The methods of a run in words, as a paper reports them, with citations of what the run used."""

from collections.abc import Mapping

import pandas as pd

from slpd_core import __version__, artifacts, config
from slpd_core.config.published import find_published
from slpd_core.endpoints.scores import SCORES
from slpd_core.report.paper_question import DINO, FROZEN, SLPD, classify_run
from slpd_core.report.provenance import read_versions
from slpd_core.report.result_rows import name_classifier
from slpd_core.report.task import TaskResults
from slpd_core.report.wording import describe_truth, join_words, lower_title

TISSUE_WORDS = {
    "otsu": "by Otsu's threshold on the saturation [@otsu1979threshold]",
    "grandqc": "by the network of GrandQC [@weng2024grandqc]",
    "hest": "by the network of HEST [@jaume2024hest]",
}
STAIN_WORDS = {
    "macenko": "Stains were normalized by Macenko's method [@macenko2009method].",
    "reinhard": "Colors were normalized by Reinhard's method [@reinhard2001color].",
}
TOOL_WORDS = {
    "trident": "TRIDENT [@zhang2025accelerating] or CLAM [@lu2021data]",
    "slide2vec": "slide2vec",
    "hipt": "the code of HIPT [@chen2022scaling]",
    "hs2p": "hs2p",
}
# Settings of pretraining that sentences name, and those that count with prototypes only.
NAMED_SETTINGS = (
    *("alpha_intra", "alpha_inter", "clustering", "n_prototypes", "n_neighbors", "matching", "exclude_same_patient"),
    *("prototype_start_epoch", "init_from", "train_on", "epochs", "batch_size", "koleo_weight", "n_global_crops"),
    *("global_crop_size", "n_local_crops", "local_crop_size", "base_lr", "warmup_epochs", "min_lr"),
    *("embed_dim", "depth", "n_heads"),
)
PROTOTYPE_SETTINGS = (
    *("cluster_space", "cluster_crop", "min_regions", "kmeans_restarts", "kmeans_iterations", "inter_target"),
    *("center_slides", "shared_center", "skip_crop_k"),
)
# Published patch encoder -> its paper; of others the page is cited where the weights are.
ENCODER_PAPERS = {
    **dict.fromkeys(("uni", "uni2-h"), "chen2024towards"),
    "virchow": "vorontsov2024foundation",
    "virchow2": "zimmermann2024virchow2",
    "gigapath": "xu2024whole",
    **dict.fromkeys(("lunit-vits8", "lunit-vits16"), "kang2023benchmarking"),
}
CLASSIFIER_WORDS = {
    "knn": "the {knn_n_neighbors} nearest neighbors by the mean of a slide's features",
    "mil": "the instance of the highest score (MIL)",
    "abmil": "gated attention (ABMIL) [@ilse2018attention]",
    "dsmil": "a dual stream (DS-MIL) [@li2021dual]",
    "vit_wsi": "a transformer over the regions of a slide (ViT_WSI) [@chen2022scaling]",
}
LINEAR_WORDS = {
    "regression": "ridge regression of the mean of a slide's features",
    "survival": "Cox regression [@cox1972regression] of the mean of a slide's features",
}
LOGISTIC_WORDS = "logistic regression of the mean of a slide's features [@pedregosa2011scikit]"
FEATURE_WORDS = {
    config.COLOR_FEATURES: "the mean color of each patch",
    config.PATCH_FEATURES: "the patches themselves",
    "mean_token": "the mean patch of each region",
    "whitened_mean_token": "the mean patch of each region, whitened",
}
SCORE_WORDS = {"kappa": "quadratic-weighted kappa", "spearman": "Spearman's correlation", "c_index": "the C-index"}
SCORE_CITATIONS = {"kappa": " [@cohen1968weighted]", "c_index": " [@harrell1982evaluating]"}
SCORE_CITATIONS |= {"mean_auc": " [@uno2007evaluating]"}


def describe_methods(
    settings: config.MethodsConfig,
    ledger: pd.DataFrame,
    results: Mapping[str, TaskResults],
    *,
    seed: int,
) -> list[str]:
    """Describe how a run made its results.

    Args:
        settings: Of the run.
        ledger: Of the cohort.
        results: Of each task.
        seed: Of the config.

    Returns:
        Paragraphs, with citations as `references.list_citations` reads them.
    """
    evaluated = [_describe_evaluation(of, alone=len(results) == 1) for of in results.values() if of.rows]
    paragraphs = [_describe_slides(settings, ledger), _describe_patches(settings)]
    paragraphs += [_describe_pretraining(settings)] if settings.runs else []
    paragraphs += (
        [*evaluated, _describe_classifiers(settings, results), _describe_statistics(results)] if evaluated else []
    )
    return [*paragraphs, _describe_software(seed, read_versions())]


def list_encoder_pages(settings: config.MethodsConfig) -> dict[str, str]:
    """List the pages of published patch encoders that no paper stands for.

    Args:
        settings: Of the run.

    Returns:
        BibTeX entries by key.
    """
    entries = {}
    for encoder in (settings.encoder, *settings.compared.values()):
        published = find_published(encoder.name)
        if published is not None and encoder.name not in ENCODER_PAPERS:
            fields = f"  author       = {{{{{published.hub.partition('/')[0]}}}}},\n"
            fields += f"  title        = {{{{{published.hub}}}: Weights of a Patch Encoder}},\n"
            fields += f"  howpublished = {{\\url{{{published.page}}}}}\n"
            entries[_page_key(encoder.name)] = f"@misc{{{_page_key(encoder.name)},\n{fields}}}"
    return entries


def _page_key(name: str) -> str:
    """Key of the page of a published encoder."""
    return f"weights-{''.join(letter if letter.isalnum() else '-' for letter in name)}"


def _describe_slides(settings: config.MethodsConfig, ledger: pd.DataFrame) -> str:
    """Sentences on slides, tissue and regions."""
    usable, regions = ledger[ledger["status"] == artifacts.OK], settings.regions
    side_mm = regions.size_px * regions.target_mpp / 1000
    sentences = [f"{_count(len(usable), 'slide')} of {_count(usable['patient_id'].nunique(), 'patient')} were used."]
    excluded = {
        "could not be read": (ledger["status"] == artifacts.QUARANTINED).sum(),
        "had no region with enough tissue": (ledger["status"] == artifacts.EMPTY).sum(),
    }
    lost = [f"{_count(n, 'slide')} {why}" for why, n in excluded.items() if n]
    sentences += [f"{' and '.join(lost)}."] if lost else []
    sentences.append(
        "Slides were read by OpenSlide [@goode2013openslide], and formats that it does not read by other readers."
    )
    outlined = int((usable["tissue_source"] != "segmented").sum())
    if outlined < len(usable):
        thumbnail = f"on pictures of {settings.thumbnail_mpp:g} µm per pixel"
        sentences.append(f"Tissue was found {TISSUE_WORDS[settings.tissue]} {thumbnail}.")
    if outlined:
        sentences.append(f"On {_count(outlined, 'slide')} the tissue was outlined by hand.")
    size = f"{regions.size_px:,} × {regions.size_px:,} pixels at {regions.target_mpp:g} µm per pixel"
    size += f" (side {side_mm:.3g} mm)"
    n_regions = _count(int(usable["regions"].sum()), "region")
    if settings.coordinates:
        sentences.append(f"{n_regions} of {size} were chosen by {TOOL_WORDS[settings.coordinates]}.")
    else:
        origin = "placed to hold most tissue" if regions.anchor == "tissue" else "that begins at the slide's corner"
        sentences.append(
            f"Slides were divided into regions of {size} by a grid {origin}; {n_regions} with at least "
            f"{regions.min_tissue_fraction:.0%} tissue were kept.".replace("% tissue", " % tissue")
        )
    if regions.min_focus:
        sentences.append(f"Regions of a focus below {regions.min_focus:g} (variance of the Laplacian) were dropped.")
    return " ".join(sentences)


def _describe_patches(settings: config.MethodsConfig) -> str:
    """Sentences on the patch encoder and those it is compared with."""
    encoder, grid = settings.encoder, settings.regions.size_px // settings.encoder.patch_px
    side = f"{encoder.patch_px} × {encoder.patch_px} pixels"
    sentences = [f"Each region consists of {grid} × {grid} patches of {side}, and each patch was encoded as a vector."]
    if settings.stain_normalization:
        sentences.append(STAIN_WORDS[settings.stain_normalization])
    sentences.append(f"The patch encoder was {_describe_encoder(encoder, settings)}.")
    for name, other in settings.compared.items():
        sentences.append(f"For comparison ({name}), patches were also encoded by {_describe_encoder(other, settings)}.")
    return " ".join(sentences)


def _describe_encoder(encoder: config.NamedEncoderConfig, settings: config.MethodsConfig) -> str:
    """A patch encoder and where its weights are from."""
    if encoder.source == "features":
        return f"{encoder.name}, run by {TOOL_WORDS[encoder.format or 'trident']}"
    published = find_published(encoder.name)
    if published is not None:
        cited = ENCODER_PAPERS.get(encoder.name, _page_key(encoder.name))
        of_file = f" of the file {encoder.file}" if encoder.file else f" of {published.hub}"
        if encoder.source == "random":
            return f"a vision transformer of the shape of {published.hub} [@{cited}], with random weights, untrained"
        return f"the vision transformer {encoder.name} with the weights{of_file} [@{cited}]"
    model = f"the vision transformer [@dosovitskiy2021image] {encoder.name} of timm [@wightman2019pytorch]"
    if encoder.source == "dino":
        return f"{model}, {_describe_stage_one(settings)}"
    weights = {
        "random": "with random weights, untrained",
        "hipt": f"with HIPT's weights [@chen2022scaling] ({encoder.file})",
        "timm": f"with the weights of the file {encoder.file}" if encoder.file else "with its published weights",
    }
    return f"{model} {weights.get(encoder.source or '', 'whose weights are not yet chosen')}"


def _describe_stage_one(settings: config.MethodsConfig) -> str:
    """The training of a patch encoder on the cohort."""
    recipe = settings.recipe
    if recipe is None:
        return "trained on these slides"
    koleo = f" and the KoLeo loss of DINOv2 [@oquab2024dinov2] (weight {recipe.koleo_weight:g})"
    return (
        f"trained without labels by DINO [@caron2021emerging]{koleo if recipe.koleo_weight else ''} on "
        f"{settings.patches_per_slide:,} patches of each slide, for {_count(recipe.epochs, 'epoch')} in batches of "
        f"{recipe.batch_size:,} (AdamW [@loshchilov2019decoupled], learning rate "
        f"{_number(recipe.base_lr)} for a batch of 256)"
    )


def _describe_pretraining(settings: config.MethodsConfig) -> str:
    """Sentences on the region encoders: what each run is, then how those of equal settings were trained."""
    kinds = {name: classify_run(run.model_dump()) for name, run in settings.runs.items()}
    sentences = [
        "Region encoders are vision transformers over the grid of a region's patches, as in HIPT [@chen2022scaling]."
    ]
    sentences += [f"{name}: {_describe_run(run, kinds[name])}." for name, run in settings.runs.items()]
    trainings: dict[str, list[str]] = {}
    for name, run in settings.runs.items():
        if kinds[name] != FROZEN:
            trainings.setdefault(_describe_training(run), []).append(name)
    for training, names in trainings.items():
        sentences.append(f"{join_words(names)} {'was' if len(names) == 1 else 'were'} {training}")
    return " ".join(sentences)


def _describe_run(run: config.PretrainRunConfig, kind: str) -> str:
    """The objective of a run."""
    if kind == FROZEN:
        return f"the encoder of the file {run.init_from} as it is, without training on these slides"
    start = f", from the weights of {run.init_from}" if run.init_from else ""
    if kind == DINO:
        return f"self-distillation by DINO [@caron2021emerging], without prototypes{start}"
    assert kind == SLPD
    clustered = f"The regions of each slide were clustered by k-means before each epoch into M = {run.n_prototypes}"
    if run.clustering == "global":
        clustered = (
            f"All regions at once were clustered by k-means before each epoch into M = {run.n_prototypes} per slide"
        )
    parts = [
        f"Slide-Level Prototypical Distillation (SLPD) [@yu2023slpd], which adds prototypes to the self-distillation "
        f"of DINO [@caron2021emerging]{start}. {clustered} prototypes; the loss within slides has weight "
        f"{run.alpha_intra:g}, that between slides weight {run.alpha_inter:g}"
    ]
    if run.alpha_inter:
        matched = "matched one to one" if run.matching == "optimal" else "each matched with its nearest"
        others = " of other patients" if run.exclude_same_patient else ""
        parts.append(
            f"between slides, a region learnt from the K = {run.n_neighbors} most similar "
            f"{'slide' if run.n_neighbors == 1 else 'slides'}{others} by the cosines of their prototypes, {matched}"
        )
    if run.prototype_start_epoch:
        parts.append(f"prototypes were used from epoch {run.prototype_start_epoch} on")
    return "; ".join(parts)


def _describe_training(run: config.PretrainRunConfig) -> str:
    """How a run was trained, after its name."""
    seen = "on the regions of all slides, those of test folds included, without labels"
    if run.train_on == "train_fold":
        seen = "once per fold, on the regions of its training slides only, without labels"
    koleo = f", with the KoLeo loss [@oquab2024dinov2] of weight {run.koleo_weight:g}" if run.koleo_weight else ""
    shape = f"{run.depth} layers, {run.n_heads} heads, {run.embed_dim} dimensions"
    return (
        f"trained ({shape}) {seen}, for {_count(run.epochs, 'epoch')} in batches of "
        f"{run.batch_size:,} regions{koleo}, with {run.n_global_crops} crops of {run.global_crop_size} × "
        f"{run.global_crop_size} and {run.n_local_crops} of {run.local_crop_size} × {run.local_crop_size} patches; "
        f"optimizer AdamW [@loshchilov2019decoupled], learning rate {_number(run.base_lr)} for a batch of "
        f"256, warmed up over {_count(run.warmup_epochs, 'epoch')}, then cosine to {_number(run.min_lr)}."
        f"{_describe_changes(run)}"
    )


def _describe_changes(run: config.PretrainRunConfig) -> str:
    """The settings that differ from the paper's and that no other sentence names."""
    paper, here = config.default_config().pretrain.run("slpd").model_dump(), run.model_dump()
    left_out = {*NAMED_SETTINGS, *(() if run.uses_prototypes else PROTOTYPE_SETTINGS)}
    changed = [key for key in here if key not in left_out and here[key] != paper.get(key)]
    texts = [f"{key} {_number(here[key]) if isinstance(here[key], float) else here[key]}" for key in changed]
    return f" Other settings that differ from the paper's: {', '.join(texts)}." if texts else ""


def _describe_evaluation(results: TaskResults, *, alone: bool) -> str:
    """Sentences on a task: its slides, folds, scores and their intervals."""
    endpoint, table = results.endpoint, results.table
    labels = results.labels
    scores = [
        f"{SCORE_WORDS.get(name) or lower_title(SCORES[name].title)}{SCORE_CITATIONS.get(name, '')}"
        for name in endpoint.shown_scores
    ]
    name = "The task" if alone else f"Task {results.task}"
    sentences = [
        f"{name} ({endpoint.kind}) has {_count(len(labels), 'slide')} of "
        f"{_count(labels['patient_id'].nunique(), 'patient')} ({describe_truth(labels, endpoint)}).",
        f"It was evaluated by cross-validation: {table['splits'].iloc[0]}.",
    ]
    if (results.folds["part"] == "val").any():
        sentences.append("Part of the training slides of each fold was held out for validation.")
    if results.rows[0].is_by_patient:
        sentences.append("The slides of a patient are one bag.")
    sentences.append(f"Measures are {join_words(scores)}.")
    return " ".join(sentences)


def _describe_statistics(results: Mapping[str, TaskResults]) -> str:
    """Sentences on the intervals and comparisons of all tasks."""
    sentences = [
        "Results are means and standard deviations over folds. The 95 % intervals of the means are by the jackknife "
        "over patients."
    ]
    references = {of.reference.sentence for of in results.values() if of.reference is not None and len(of.table) > 1}
    if references:
        sentences.append(
            f"Other rows were compared with one that the settings name ({join_words(sorted(references))}), paired by "
            "patient and without correction for the number of comparisons."
        )
    return " ".join(sentences)


def _describe_classifiers(settings: config.MethodsConfig, results: Mapping[str, TaskResults]) -> str:
    """Sentences on the classifiers of all tasks and on their features."""
    rows = [row for of in results.values() for row in of.rows]
    used: dict[str, None] = {}
    for row in rows:
        words = CLASSIFIER_WORDS.get(row.classifier) or LINEAR_WORDS.get(row.endpoint.kind, LOGISTIC_WORDS)
        used[words.format(**settings.training.model_dump())] = None
    features = [*dict.fromkeys(FEATURE_WORDS.get(row.features, row.features) for row in rows)]
    sentences = [f"Features: {join_words(features)}.", f"Classifiers: {join_words([*used])}."]
    networks = [row for row in rows if row.classifier in config.NETWORK_CLASSIFIERS]
    if networks:
        names = [*dict.fromkeys(name_classifier(row.classifier, row.endpoint) for row in networks)]
        training = settings.training
        chosen = "the weights after the last epoch were used"
        if training.select == "val":
            chosen = "the weights of the epoch with the lowest loss on validation slides were used"
        sentences.append(
            f"{join_words(names)} {'was' if len(names) == 1 else 'were'} trained for "
            f"{_count(training.epochs, 'epoch')} by Adam [@kingma2015adam] (learning rate {_rates(training)}, weight "
            f"decay {_number(training.weight_decay)}, dropout {_number(training.dropout)}); {chosen}."
        )
    return " ".join(sentences)


def _rates(training: config.ClassifierTrainingConfig) -> str:
    """The learning rate, or those it was chosen from."""
    if not training.lr_grid:
        return _number(training.lr)
    return f"chosen among {join_words([_number(rate) for rate in training.lr_grid])} on validation slides"


def _describe_software(seed: int, versions: Mapping[str, str]) -> str:
    """Sentences on the software."""
    return (
        f"All steps are those of the SLPD pipeline {__version__}, run by Snakemake {versions['snakemake']} "
        f"[@molder2021sustainable] with PyTorch {versions['torch']} [@paszke2019pytorch] and scikit-learn "
        f"{versions['scikit-learn']} [@pedregosa2011scikit]; the seed was {seed}."
    )


def _number(value: float) -> str:
    """A number such as 0.0005 or 1e-6."""
    return f"{value:g}".replace("e-0", "e-")


def _count(n: int, noun: str) -> str:
    """A number and its noun, such as "1 slide" or "1,000 slides"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
