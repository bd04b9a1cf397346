"""Settings of self-distillation, of both stages."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from slpd_core.config.base import Fraction, Int, NonNegative, NonNegativeInt, Number, Positive, PositiveFloat, Section


class SelfDistillationConfig(Section):
    """Training settings of student and teacher, as in DINO."""

    n_global_crops: Annotated[Int, Field(ge=2)]
    n_local_crops: NonNegativeInt
    drop_path: Annotated[Number, Field(ge=0, lt=1)]
    hidden_dim: Positive
    bottleneck_dim: Positive
    out_dim: Positive
    epochs: Positive
    batch_size: Positive
    base_lr: PositiveFloat
    min_lr: NonNegative
    warmup_epochs: NonNegativeInt
    weight_decay: NonNegative
    weight_decay_end: NonNegative
    clip_norm: PositiveFloat
    freeze_last_layer_epochs: NonNegativeInt
    teacher_momentum: Fraction
    student_temperature: PositiveFloat
    teacher_temperature: PositiveFloat
    center_momentum: Fraction
    koleo_weight: NonNegative

    @model_validator(mode="after")
    def _warmup_ends(self) -> Self:
        if self.epochs and self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs: {self.warmup_epochs} exceeds epochs {self.epochs}; lower it")
        return self


class StageOneConfig(SelfDistillationConfig):
    """Stage one: DINO on patches."""

    global_crop_px: Positive
    local_crop_px: Positive
    global_crops_scale: tuple[PositiveFloat, PositiveFloat]
    local_crops_scale: tuple[PositiveFloat, PositiveFloat]
    stain_jitter: Fraction
    contrast_jitter: Fraction
    grayscale_prob: Fraction

    @model_validator(mode="after")
    def _areas_are_ranges(self) -> Self:
        for key in ("global_crops_scale", "local_crops_scale"):
            least, most = getattr(self, key)
            if not least <= most <= 1:
                raise ValueError(f"{key}: {[least, most]} is no range of shares; give [least, greatest], at most 1")
        return self
