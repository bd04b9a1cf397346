"""Arguments of functions, checked as the settings of the same names are."""

import inspect
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from pydantic import ValidationError, create_model

from slpd_core.config.base import Section

P = ParamSpec("P")
R = TypeVar("R")


def check_arguments(
    *sections: type[Section], skip: Collection[str] = (), **types: Any
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function to check its arguments as the settings of the same names.

    Args:
        sections: Sections of the config that have the settings.
        skip: Arguments that the function checks itself.
        types: Types with bounds, by name, of arguments that are no settings.

    Returns:
        The decorator. A call raises ValueError, which names each argument out of bounds, its value and the bounds.
    """
    known = {name: field.rebuild_annotation() for section in sections for name, field in section.model_fields.items()}
    known |= types

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        names = [*inspect.signature(function).parameters]
        fields: dict[str, Any] = {name: (known[name], None) for name in names if name in known and name not in skip}
        model = create_model(function.__name__, __base__=Section, **fields)
        title = function.__qualname__.removesuffix(".__init__")

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            passed = dict(zip(names, args, strict=False)) | kwargs
            try:
                valid = model(**{name: passed[name] for name in fields if name in passed})
            except ValidationError as error:
                raise ValueError("\n".join(_problems(error, title))) from None
            kwargs.update({name: getattr(valid, name) for name in fields if name in kwargs})
            return function(*args, **kwargs)

        return checked

    return decorate


def _problems(error: ValidationError, function: str) -> list[str]:
    """Describe each problem: the function, the argument, the bounds and the value."""
    lines = []
    for item in error.errors():
        argument, message = ".".join(map(str, item["loc"])), item["msg"].removeprefix("Value error, ")
        if item["type"] == "missing":
            message = "give one more number"
        lines.append(f"{function}: {argument}: {message} (found {item['input']!r})")
    return lines
