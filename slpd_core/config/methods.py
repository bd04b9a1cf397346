"""The settings that describe how results were made: what a methods paragraph names."""

from pathlib import PurePath
from typing import Literal

from slpd_core.config.base import Positive, Section
from slpd_core.config.evaluation import ClassifierTrainingConfig
from slpd_core.config.patch_encoder import EncoderSource, FeatureFormat, PatchEncoderConfig
from slpd_core.config.pretraining import PretrainRunConfig
from slpd_core.config.slides import CoordinateFormat, RegionsConfig
from slpd_core.config.ssl import StageOneConfig


class NamedEncoderConfig(Section):
    """A patch encoder by its names: where files are is left out, since it can change without any result.

    Attributes:
        name: As the settings state it: of the table of published encoders, of timm, of the hub, or of a folder.
        source: Of its weights; None if none was chosen.
        file: Name of the file of weights, without its folder; None where there is none.
        patch_px: Side of a patch.
        format: Of another tool's features.
    """

    name: str
    source: EncoderSource | None
    file: str | None
    patch_px: Positive
    format: FeatureFormat | None

    @classmethod
    def from_encoder(cls, name: str, encoder: PatchEncoderConfig) -> "NamedEncoderConfig":
        """Name an encoder.

        Args:
            name: As the settings state it.
            encoder: Its settings.

        Returns:
            Its names.
        """
        file = PurePath(encoder.weights).name if encoder.weights else None
        name = PurePath(name).name if encoder.folder else name
        return cls(name=name, source=encoder.source, file=file, patch_px=encoder.patch_px, format=encoder.format)


class MethodsConfig(Section):
    """The settings that a methods paragraph names.

    Attributes:
        tissue: How tissue is found.
        thumbnail_mpp: um/px of the picture that tissue is found on.
        regions: How regions are chosen.
        coordinates: The format of another tool's regions; None where they are chosen here.
        stain_normalization: Of the pixels that are encoded.
        encoder: The cohort's patch encoder.
        compared: Those it is compared with in rows of results.
        recipe: Of a patch encoder that is trained on the cohort.
        patches_per_slide: That it is trained on; None where it is not trained here.
        runs: Pretraining runs; init_from is a file's name.
        training: Of classifiers.
    """

    tissue: Literal["otsu", "grandqc", "hest"]
    thumbnail_mpp: float
    regions: RegionsConfig
    coordinates: CoordinateFormat | None
    stain_normalization: Literal["macenko", "reinhard"] | None
    encoder: NamedEncoderConfig
    compared: dict[str, NamedEncoderConfig]
    recipe: StageOneConfig | None
    patches_per_slide: Positive | None
    runs: dict[str, PretrainRunConfig]
    training: ClassifierTrainingConfig
