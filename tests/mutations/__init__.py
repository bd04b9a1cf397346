"""Small wrong changes to the package that its tests must notice; tests/mutations/__main__.py tries them."""

from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
# chapter: the folders and files of its fast tests
CHAPTERS = {
    "slides": ("tests/slides", "tests/wsi"),
    "pretraining": ("tests/pretraining", "tests/prototypes", "tests/ssl", "tests/encoders"),
    "evaluation": ("tests/evaluation", "tests/report", "tests/endpoints", "tests/search"),
    "export": (
        "tests/export",
        *(f"tests/slides/test_{name}.py" for name in ("imported_tokens", "regions", "focus")),
        *(f"tests/workflow/test_{name}.py" for name in ("exports", "imports")),
        "tests/test_config.py",
    ),
}


@dataclass(frozen=True)
class Mutation:
    """One change: the text `old` of a module of slpd_core, which occurs in it once, becomes `new`."""

    chapter: str
    module: str  # path below slpd_core, as slides/tissue.py
    old: str
    new: str

    def apply(self, source: str) -> str:
        """Return the module's source with the change.

        Raises:
            ValueError: `old` does not occur exactly once, or nothing is changed.
        """
        if source.count(self.old) != 1 or self.old == self.new:
            raise ValueError(
                f"{self}: occurs {source.count(self.old)} times in the module; state a text that occurs once"
            )
        return source.replace(self.old, self.new)

    def rounds(self, root: Path) -> list[list[str]]:
        """Return the tests to run, nearest first: of the module's file, of its folder, of the chapter."""
        folder = f"tests/{Path(self.module).parent}"
        file = f"{folder}/test_{Path(self.module).stem}.py"
        return [[path] for path in (file, folder) if (root / path).exists()] + [list(CHAPTERS[self.chapter])]

    def __str__(self) -> str:
        return f"{self.module}: {self.old!r} -> {self.new!r}"


def load_mutations(chapter: str) -> list[Mutation]:
    """Return the changes listed for a chapter.

    Args:
        chapter: A key of `CHAPTERS`.
    """
    listed = yaml.safe_load((Path(__file__).parent / f"{chapter}.yaml").read_text())
    return [Mutation(chapter, module, old, new) for module, changes in listed.items() for old, new in changes]
