"""The versions of the stages."""

import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def stage_version(module: str) -> int:
    """Read VERSION of a stage from the text of its module; an import would slow each parse of the workflow.

    Args:
        module: Chapter and stage, as slides/tokens.

    Returns:
        The version.

    Raises:
        ValueError: The module has none.
    """
    text = (PACKAGE / f"{module}.py").read_text(encoding="utf-8")
    match = re.search(r"^VERSION = (\d+)", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"slpd_core/{module}.py: no line VERSION = ...; add one")
    return int(match[1])
