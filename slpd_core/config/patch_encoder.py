"""Settings of patch encoders: the cohort's own, and those it is compared with."""

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from slpd_core.config.base import (
    Number,
    Overrides,
    Positive,
    PositiveFloat,
    Section,
    check_overrides,
    find_pair_problems,
    problems,
    raise_problems,
)
from slpd_core.config.published import FOLDER, HUB, OF_ONE_ENCODER, published_encoders, resolve_encoder
from slpd_core.config.ssl import StageOneConfig

EncoderSource = Literal["random", "hipt", "timm", "dino", "features"]
FeatureFormat = Literal["trident", "slide2vec", "hipt"]


class PatchEncoderBaseConfig(Section):
    """Settings of a patch encoder, of which many may be left to the one that is named."""

    source: EncoderSource | None
    name: str
    model_kwargs: dict[str, Any]
    weights: str | None
    patch_px: Positive
    input_px: Positive | None
    pooling: Literal["cls", "cls_mean"] | None
    mean: tuple[Number, Number, Number] | None
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None
    interpolate_offset: Annotated[Number, Field(ge=0, lt=1)] | None
    path: str | None = None
    format: FeatureFormat | None = None

    @field_validator("model_kwargs", mode="before")
    @classmethod
    def _text_that_reads_as_a_number_is_one(cls, model_kwargs: Any) -> Any:
        kwargs = dict(model_kwargs) if isinstance(model_kwargs, dict) else {}
        for key, value in kwargs.items():
            for convert in (int, float) if isinstance(value, str) else ():
                with suppress(ValueError):
                    kwargs[key] = convert(value)
                    break
        return kwargs or model_kwargs


class PatchEncoderConfig(PatchEncoderBaseConfig):
    """Settings of one patch encoder, resolved: the source of its weights, and its input."""

    HUB: ClassVar[str] = HUB
    FOLDER: ClassVar[str] = FOLDER
    FROM_FILES: ClassVar[tuple[str, ...]] = ("hipt", "timm")  # sources whose weights may be local files
    # What timm.create_model takes beside an architecture's arguments: it would read files and fetch from addresses.
    NO_ARGUMENTS: ClassVar[tuple[str, ...]] = (
        *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_custom_load", "pretrained_filter_fn"),
        *("checkpoint_path", "cache_dir", "features_only"),
    )

    pooling: Literal["cls", "cls_mean"]

    @model_validator(mode="after")
    def _weights_fit_source(self) -> Self:
        lines = []
        if self.source == "hipt" and self.weights is None:
            lines.append("weights: null, but source is hipt; give the path of its vit256_small_dino.pth")
        if self.source == "timm" and self.weights is not None:
            lines += [
                f"{key}: null, but a file of weights does not say how its pixels were normalised; give the {key} of "
                "RGB in 0..1 that its authors publish (often ImageNet's: mean [0.485, 0.456, 0.406], std [0.229, "
                "0.224, 0.225])"
                for key in ("mean", "std")
                if getattr(self, key) is None
            ]
        if self.source != "timm" and self.name.startswith((self.HUB, self.FOLDER)):
            lines.append(f"name: {self.name!r} is published weights, but source is {self.source}; set source to timm")
        for key in self.NO_ARGUMENTS:
            if key in self.model_kwargs:
                lines.append(
                    f"model_kwargs: {key!r} is no part of an architecture; delete it, name and weights say that"
                )
        if self.source == "features":
            lines += find_pair_problems("path", self.path or "", self.format, get_args(FeatureFormat))
        elif self.path or self.format:
            lines.append(
                f"path: given, but source is {self.source}; set source to features, or path and format to null"
            )
        if self.model_kwargs.get("num_classes"):
            lines.append("model_kwargs: 'num_classes' makes a classifier; delete it, tokens come from before the head")
        raise_problems(lines)
        return self

    @property
    def hub_name(self) -> str | None:
        """The repository on the Hugging Face hub, if one is named."""
        return self.name.removeprefix(self.HUB) if self.name.startswith(self.HUB) else None

    @property
    def folder(self) -> Path | None:
        """The local folder of a model, if one is named."""
        return Path(self.name.removeprefix(self.FOLDER)) if self.name.startswith(self.FOLDER) else None

    @property
    def files(self) -> list[str]:
        """The local files that the source reads."""
        if self.source not in self.FROM_FILES:
            return []
        folder = sorted(str(path) for path in self.folder.iterdir() if path.is_file()) if self.folder else []
        return ([self.weights] if self.weights else []) + folder

    def require_source(self) -> None:
        """Check that the settings say where the weights come from.

        Raises:
            ValueError: They do not.
        """
        if self.source is None:
            raise ValueError(
                "patch_encoder.source: null, and no other setting says whose weights make the tokens. Choose one:\n"
                "  patch_encoder: {name: uni2-h}   a published encoder of docs/encoders.md; its weights are downloaded "
                "once (several ask for a free account and consent)\n"
                "  patch_encoder: {source: hipt, weights: vit256_small_dino.pth}   the paper's; from HIPT's authors\n"
                "  patch_encoder: {source: timm, weights: FILE, mean: [...], std: [...]}   any ViT of timm\n"
                "  patch_encoder: {source: dino}   trained here, on patches of these slides; needs a GPU and hours\n"
                "  patch_encoder: {source: features, path: FOLDER, format: trident}   tokens that another tool made\n"
                "  patch_encoder: {source: random}   untrained: only to see everything run, not for results\n"
                "How long each takes on this machine: snakemake preflight --config patch_encoder='{source: ...}'"
            )

    def require_weights(self, key: str = "patch_encoder") -> None:
        """Check that the local file or folder of the weights exists.

        Args:
            key: Of the section in the config, for the error.

        Raises:
            FileNotFoundError: It does not exist.
        """
        if self.path and not Path(self.path).is_dir():
            raise FileNotFoundError(f"{key}.path: no folder {self.path}; give the folder of the slides' features")
        if self.source not in self.FROM_FILES:
            return
        if self.weights and not Path(self.weights).is_file():
            raise FileNotFoundError(
                f"{key}.weights: no file {self.weights}; download the model's weights from where its authors publish "
                f"them and give their path, or set {key}.source to random for an untrained baseline"
            )
        if self.folder and not (self.folder / "config.json").is_file():
            raise FileNotFoundError(
                f"{key}.name: {self.folder} has no config.json; give the whole folder of a timm model, as "
                "`hf download OWNER/MODEL --local-dir DIR` makes it"
            )


class PatchEncodersConfig(PatchEncoderBaseConfig):
    compared: Overrides
    dino: StageOneConfig

    @model_validator(mode="after")
    def _encoders_are_valid(self) -> Self:
        try:
            self.encoder()
        except ValidationError as error:
            raise_problems(problems(error))
        check_overrides("compared", self.compared, self.encoder)
        trained = [name for name in self.compared if self.encoder(name).source == "dino"]
        raise_problems(
            [
                f"compared.{name}.source: dino is for the cohort's own encoder only; give another source"
                for name in trained
            ]
        )
        return self

    @property
    def recipe(self) -> StageOneConfig | None:
        """Training settings of the cohort's own encoder; None where its weights come from elsewhere."""
        return self.dino if self.source == "dino" else None

    @property
    def cohort_encoder(self) -> PatchEncoderConfig:
        """Settings of the cohort's own encoder, whose tokens are pretrained on."""
        return self.encoder()

    def encoder(self, name: str | None = None) -> PatchEncoderConfig:
        """Apply the overrides of a compared encoder to the section, and resolve its name.

        A published encoder inherits none of the settings that are another encoder's.

        Args:
            name: Of the compared encoder; None: the cohort's own.

        Returns:
            Its settings.
        """
        overrides = {} if name is None else self.compared[name]
        is_published = str(overrides.get("name")) in published_encoders()
        inherited = self.model_dump(include={*PatchEncoderConfig.model_fields})
        settings = {**inherited, **(OF_ONE_ENCODER if is_published else {}), **overrides}
        return PatchEncoderConfig(**resolve_encoder(PatchEncoderBaseConfig(**settings).model_dump()))

    def stated_name(self, name: str | None = None) -> str:
        """Return the name of an encoder as the settings state it.

        Args:
            name: Of the compared encoder; None: the cohort's own.

        Returns:
            A name of the table, of timm, of the hub or of a folder.
        """
        label: str = self.compared.get(name or "", {}).get("name", self.name)
        return label

    def encoders(self) -> dict[str, PatchEncoderConfig]:
        """List every encoder, the cohort's own first.

        Returns:
            Settings by the key in the config.
        """
        return {
            "patch_encoder": self.cohort_encoder,
            **{f"patch_encoder.compared.{name}": self.encoder(name) for name in self.compared},
        }
