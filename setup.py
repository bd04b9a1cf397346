"""Adds config.yaml, which is at the top of the repository, to the built package; pyproject.toml says all else."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfig(build_py):
    """Builds the package with a copy of config.yaml beside the models that check it."""

    def run(self) -> None:
        """Build; an editable package reads the file at the top of the repository."""
        super().run()
        if not self.editable_mode:
            self.copy_file("config.yaml", str(Path(self.build_lib, "slpd_core", "config", "config.yaml")))

    def get_source_files(self) -> list[str]:
        """The files of a source distribution, config.yaml too."""
        return [*super().get_source_files(), "config.yaml"]


setup(cmdclass={"build_py": BuildWithConfig})
