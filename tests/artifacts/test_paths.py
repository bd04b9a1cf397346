"""The rules write each file under the name that the package has for it."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from slpd_core.artifacts.paths import CohortPaths, PathPattern, join_encoder_name, split_encoder_name

ROOT = Path(__file__).parents[2]
UNNAMED = {"state_dir", "forecast", "joined_slides", "kept_tokens_dir", "logs_dir", "benchmarks_dir"}  # undeclared
UNNAMED |= {"checkpoint", "patch_checkpoint", "run_record"}


def patterns() -> dict[str, set[str]]:
    """The names of each file by its attribute, * for what varies, of the cohort's own patch encoder and of another."""
    members = {name: member for name, member in vars(CohortPaths).items() if isinstance(member, PathPattern)}
    return {
        name: {re.sub(r"\{\w+\}", "*", f"<results>/{text}") for text in (member.pattern, member.compared) if text}
        for name, member in members.items()
    }


def literals() -> set[str]:
    """Every name below <results> in the rules, * for wildcards."""
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    text = re.sub(r'multiext\(\s*"([^"]*)",\s*"\.parquet",\s*"\.csv",?\s*\)', r'"\1.parquet"', text)
    return {re.sub(r"\{\w+\}", "*", name) for name in re.findall(r'"(<results>[^"]*)"', text)}


def test_the_rules_name_no_file_that_the_package_does_not():
    known = {pattern for names in patterns().values() for pattern in names}
    unknown = {name for name in literals() if not any(fnmatchcase(name, pattern) for pattern in known)}
    assert literals()
    assert unknown == set()


def test_the_package_names_no_file_that_the_rules_do_not():
    text = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    for attribute, names in patterns().items():
        used = f"PATHS.{attribute}(" in text or any(
            fnmatchcase(name, pattern) for name in literals() for pattern in names
        )
        assert used or attribute in UNNAMED, attribute


def test_no_two_files_have_one_name():
    names = [name for group in patterns().values() for name in group]
    assert len(set(names)) == len(names)


def test_a_path_is_its_pattern_with_the_names_in_it():
    paths = CohortPaths(Path("results/x"))
    assert paths.checkpoint("{run}") == Path("results/x/pretrain/{run}/checkpoint.pt")
    assert paths.predictions("label", "slpd", "knn", 0) == Path("results/x/evaluate/label/slpd/knn/fold0.parquet")
    assert paths.tokens("s 1") == Path("results/x/tokens/s 1.h5")
    assert paths.external_ledger("rome", encoder="hipt") == Path("results/x/predict/rome/compared/hipt/ledger.parquet")
    assert paths.tokens("s 1", encoder="hipt") == Path("results/x/compared/hipt/tokens/s 1.h5")


@pytest.mark.parametrize(
    ("name", "values"), [("tissue", ()), ("sheet", ("x",)), ("classifier", ("label", "slpd", "knn"))]
)
def test_a_path_takes_as_many_names_as_its_pattern(name, values):
    with pytest.raises(ValueError, match="zip"):
        getattr(CohortPaths(Path("results/x")), name)(*values)


def test_only_what_a_compared_encoder_writes_takes_its_name():
    with pytest.raises(ValueError, match="zip"):
        CohortPaths(Path("results/x")).regions("s", encoder="hipt")


@pytest.mark.parametrize(
    ("name", "parts"), [("slpd", ("slpd", None)), ("x.fold0", ("x", 0)), ("a-b.fold12", ("a-b", 12))]
)
def test_an_encoders_name_is_its_run_and_fold(name, parts):
    assert split_encoder_name(name) == parts
    assert join_encoder_name(*parts) == name
