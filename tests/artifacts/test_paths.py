"""The rules write each file under the name that the package has for it."""

import inspect
import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from slpd_core.artifacts.paths import CohortPaths, join_encoder_name, split_encoder_name

ROOT = Path(__file__).parents[2]
UNNAMED = {"root", "state_dir", "logs_dir", "benchmarks_dir", "checkpoint", "patch_checkpoint"}  # undeclared


def patterns() -> dict[str, set[str]]:
    """The names of each file by its method, * for what varies, of the cohort's own patch encoder and of another."""
    paths, names = CohortPaths(Path("<results>")), {}
    for method, function in inspect.getmembers(CohortPaths, inspect.isfunction):
        if not method.startswith("_"):
            names_of = [*inspect.signature(function).parameters][1:]
            variants = [["*" for _ in names_of]]
            if names_of[-1:] == ["encoder"]:
                variants.append(variants[0][:-1])
            names[method] = {str(getattr(paths, method)(*values)) for values in variants}
    return names


def literals() -> set[str]:
    """Every name below <results> in the rules, * for wildcards."""
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    text = re.sub(r'multiext\("([^"]*)", "\.parquet", "\.csv"\)', r'"\1.parquet"', text)
    return {re.sub(r"\{\w+\}", "*", name) for name in re.findall(r'"(<results>[^"]*)"', text)}


def test_the_rules_name_no_file_that_the_package_does_not():
    known = {pattern for names in patterns().values() for pattern in names}
    unknown = {name for name in literals() if not any(fnmatchcase(name, pattern) for pattern in known)}
    assert literals()
    assert unknown == set()


def test_the_package_names_no_file_that_the_rules_do_not():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for method, names in patterns().items():
        used = f"PATHS.{method}(" in text or any(fnmatchcase(name, pattern) for name in literals() for pattern in names)
        assert used or method in UNNAMED, method


def test_no_two_files_have_one_name():
    names = [name for group in patterns().values() for name in group]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("name", "parts"), [("slpd", ("slpd", None)), ("x.fold0", ("x", 0)), ("a-b.fold12", ("a-b", 12))]
)
def test_an_encoders_name_is_its_run_and_fold(name, parts):
    assert split_encoder_name(name) == parts
    assert join_encoder_name(*parts) == name
