"""The versions of the stages."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def stage_version(module: str) -> int:
    """Read VERSION of a stage's module from its text: imports would cost each parse of the workflow seconds.

    Args:
        module: Chapter and stage, as slides/tokens.

    Raises:
        ValueError: The module has none.
    """
    text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    match = re.search(r"^VERSION = (\d+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"slpd_core/{module}.py: no line VERSION = ...; add one")
    return int(match[1])
