"""The types of settings, and the messages of their problems."""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


def _refuse_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("give a number, not true or false")
    return value


def _auto_or_positive(value: Any) -> Any:
    try:
        size = value if value == "auto" else int(_refuse_boolean(value))
    except (TypeError, ValueError, OverflowError):
        size = 0
    if size != "auto" and (size < 1 or size != float(value)):
        raise ValueError("give a whole number above 0, or auto")
    return size


# Text is read as a number too: YAML 1.1 takes 5e-4 for text, and --config delivers text.
Int = Annotated[int, BeforeValidator(_refuse_boolean)]
Number = Annotated[float, BeforeValidator(_refuse_boolean)]
Positive = Annotated[Int, Field(gt=0)]
AutoOrPositive = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_positive)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]
Classifier = Literal["knn", "logreg", "mil", "abmil", "dsmil", "vit_wsi"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)
ATTENTION: tuple[Classifier, ...] = ("abmil", "vit_wsi")  # those that say how much each region counts
NETWORK_CLASSIFIERS: tuple[Classifier, ...] = ("mil", "abmil", "dsmil", "vit_wsi")  # those that are trained in epochs
PATCH_FEATURES, COLOR_FEATURES = "patch_tokens", "mean_color"  # the patch encoder's tokens; mean RGB of each patch
# The mean token of each region, as it is and whitened -> its name in tables.
TOKEN_FEATURES = {"mean_token": "mean token", "whitened_mean_token": "mean token, whitened"}
WHITENED_FEATURES = "whitened_mean_token"
# No run and no compared encoder is called so: names of other features, today's and those of earlier versions.
RESERVED_NAMES = (PATCH_FEATURES, COLOR_FEATURES, *TOKEN_FEATURES, "patch", "colour")
MAX_VALUES = 100_000
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def named_overrides(named: Any) -> Any:
    """Normalize named overrides of a section: null overrides nothing, false removes a name of an earlier file.

    Args:
        named: Plain values.

    Returns:
        Overrides by name.
    """
    if not isinstance(named, dict):
        return named
    return {name: {} if overrides is None else overrides for name, overrides in named.items() if overrides is not False}


# A name of features -> the settings in which it differs from its section's own.
Overrides = Annotated[dict[str, dict[str, Any]], BeforeValidator(named_overrides)]


class Section(BaseModel):
    """A section of config.yaml: immutable; an unknown key is an error.

    A validator of several keys raises one line per problem, which begins with the key below the section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def extract(self, parameters: type[T]) -> T:
        """Build a dataclass of plain parameters whose fields are keys of the section.

        Args:
            parameters: The dataclass; fields that the section lacks keep their defaults.

        Returns:
            One with the section's values.
        """
        names = (field.name for field in fields(parameters) if field.name in type(self).model_fields)
        return parameters(**{name: getattr(self, name) for name in names})


def check_size(values: Any) -> None:
    """Check that YAML, in which a list may contain itself, does not unfold to too many values.

    Args:
        values: Plain settings.

    Raises:
        ValueError: There are more than MAX_VALUES.
    """
    ahead, seen = [values], 0
    while ahead:
        value = ahead.pop()
        ahead += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += 1
        if seen + len(ahead) > MAX_VALUES:
            raise ValueError(
                f"settings: more than {MAX_VALUES:,} values; write lists out instead of repeating them by *"
            )


def raise_problems(lines: list[str]) -> None:
    """Raise the problems, if any.

    Args:
        lines: One per problem; repeated ones are raised once.

    Raises:
        ValueError: There is a problem.
    """
    if lines:
        raise ValueError("\n".join(dict.fromkeys(lines)))


def find_pair_problems(key: str, folder: str | None, format: str | None, formats: tuple[str, ...]) -> list[str]:
    """List why a folder of another tool's files and its format do not go together.

    Args:
        key: Of the folder.
        folder: The folder; "" where it is required and missing.
        format: Of its files.
        formats: Those that are known.

    Returns:
        One line; none where they go together.
    """
    if folder == "":
        return [f"{key}: null, but source is features; give the folder of the slides' features"]
    if (folder is None) == (format is None):
        return []
    return [f"format: {format}, but {key} is {folder}; give both or neither (formats: {', '.join(formats)})"]


def check_overrides(key: str, overrides: Mapping[str, Any], settings_of: Callable[[str], Section]) -> None:
    """Check the names and settings of runs or compared encoders.

    Args:
        key: Of the overrides, for messages.
        overrides: By name.
        settings_of: Applies the overrides of a name.

    Raises:
        ValueError: One line per problem.
    """
    lines = []
    for name in overrides:
        if not PLAIN_NAME.fullmatch(name) or name in RESERVED_NAMES:
            lines.append(
                f"{key}: {name!r} cannot be a name here; use letters, digits, - and _, and none of "
                f"{', '.join(RESERVED_NAMES)}"
            )
            continue
        try:
            settings_of(name)
        except ValidationError as error:
            lines += problems(error, key, name)
        except ValueError as error:
            lines.append(f"{key}.{name}.{error}")
    raise_problems(lines)


def problems(error: ValidationError, *within: str) -> list[str]:
    """Describe each problem of a validation: its key, the value, and the remedy.

    Args:
        error: Of pydantic.
        within: Keys above what was validated.

    Returns:
        One line per problem.
    """
    lines = []
    for item in error.errors():
        key = ".".join(map(str, (*within, *item["loc"])))
        message = _message(item)
        if item["type"] == "value_error" and isinstance(item["input"], dict | BaseModel):
            lines += [f"{key}.{line}" if key else line for line in message.splitlines()]
        else:
            lines.append(f"{key}: {message}")
    return lines


def _message(item: ErrorDetails) -> str:
    """The problem of a value and its remedy, with the value unless it is a whole section."""
    kind, value = item["type"], item["input"]
    if kind == "extra_forbidden":
        return "unknown key; see config.yaml for those there are"
    if kind == "missing":
        return "missing; config.yaml has every key"
    if value is None:
        return "empty; delete the line or fill it in"
    message = item["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "dict_type"):
        message = "give keys below it, as config.yaml does"
    return message if isinstance(value, dict | BaseModel) else f"{message} (found {value!r})"
