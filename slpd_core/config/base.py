"""What sections are made of: the types of their values, and how what is wrong is said."""

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
        number = value if value == "auto" else int(_refuse_boolean(value))
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number != "auto" and (number < 1 or number != float(value)):
        raise ValueError("give a whole number above 0, or auto")
    return number


# Text is read as a number too: YAML 1.1 takes 5e-4 for text, and --config delivers text.
Int = Annotated[int, BeforeValidator(_refuse_boolean)]
Number = Annotated[float, BeforeValidator(_refuse_boolean)]
Positive = Annotated[Int, Field(gt=0)]
AutoOrPositive = Annotated[Literal["auto"] | int, BeforeValidator(_auto_or_positive)]
NonNegativeInt = Annotated[Int, Field(ge=0)]
PositiveFloat = Annotated[Number, Field(gt=0)]
NonNegative = Annotated[Number, Field(ge=0)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Classifier = Literal["knn", "logreg", "mil", "abmil", "dsmil", "vit_wsi"]
CLASSIFIERS: tuple[Classifier, ...] = get_args(Classifier)
ATTENTION: tuple[Classifier, ...] = ("abmil", "vit_wsi")  # those that say how much each region counts
PATCH_FEATURES, COLOR_FEATURES = "patch_tokens", "mean_color"  # the patch encoder's tokens; mean RGB of each patch
# No run and no compared encoder is called so: names of other features, today's and those of earlier versions.
RESERVED_NAMES = (PATCH_FEATURES, COLOR_FEATURES, "patch", "colour")
MOST_VALUES = 100_000
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


def named_overrides(named: Any) -> Any:
    """Named overrides of a section: null overrides nothing, false removes what the file below names."""
    if not isinstance(named, dict):
        return named
    return {name: {} if own is None else own for name, own in named.items() if own is not False}


# A name of features -> the settings in which it differs from its section's own.
Overrides = Annotated[dict[str, dict[str, Any]], BeforeValidator(named_overrides)]


class Section(BaseModel):
    """A section of config.yaml: immutable, and an unknown key is an error.

    A validator of several keys raises one line a problem, each beginning with the key below the section.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def select(self, parameters: type[T]) -> T:
        """Build a dataclass of plain parameters whose fields are keys of the section.

        Args:
            parameters: The dataclass; fields that the section lacks keep their defaults.

        Returns:
            One with the section's values.
        """
        names = (field.name for field in fields(parameters) if field.name in type(self).model_fields)
        return parameters(**{name: getattr(self, name) for name in names})


def check_size(values: Any) -> None:
    """Raise ValueError where settings unfold to too many: in YAML a list may hold itself, or others often."""
    ahead, seen = [values], 0
    while ahead:
        value = ahead.pop()
        ahead += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        seen += 1
        if seen + len(ahead) > MOST_VALUES:
            raise ValueError(
                f"settings: more than {MOST_VALUES:,} values; write lists out instead of repeating them by *"
            )


def raise_problems(found: list[str]) -> None:
    """Raise the problems found, if any: a line each, and each once."""
    if found:
        raise ValueError("\n".join(dict.fromkeys(found)))


def check_overrides(key: str, overrides: Mapping[str, Any], settings_of: Callable[[str], Section]) -> None:
    """Raise what is wrong with the names and settings of runs or other encoders, the values of `key`."""
    found = []
    for name in overrides:
        if not PLAIN_NAME.fullmatch(name) or name in RESERVED_NAMES:
            found.append(
                f"{key}: {name!r} cannot be a name here; use letters, digits, - and _, and none of "
                f"{', '.join(RESERVED_NAMES)}"
            )
            continue
        try:
            settings_of(name)
        except ValidationError as error:
            found += problems(error, key, name)
        except ValueError as error:
            found.append(f"{key}.{name}.{error}")
    raise_problems(found)


def problems(error: ValidationError, *within: str) -> list[str]:
    """Each problem of a validation as one line: the key, the value found, what is wrong with it.

    within: the keys above what was validated.
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
    """What is wrong with a value and what to do about it; says the value unless it is a whole section."""
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
