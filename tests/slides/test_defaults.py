"""The defaults of the stages' functions: those of config.yaml."""

import inspect

import pytest

from slpd_core.slides import grid, ledger, regions, segmentation, tissue, tokenizer

SECTIONS = [
    ("tissue", segmentation.find_tissue),
    ("tissue", segmentation.clean_mask),
    ("tissue", tissue.segment_file),
    ("regions", regions.select_regions),
    ("regions", grid.place_grid),
    ("ledger", ledger.check),
    ("tokens", tokenizer.load_tokenizer),
    ("tokens", tokenizer.build_tokenizer),
]


@pytest.mark.parametrize(("section", "function"), SECTIONS, ids=[function.__name__ for _, function in SECTIONS])
def test_a_keyword_that_config_yaml_has_too_has_its_value(settings, section, function):
    stated = getattr(settings, section).model_dump()
    keywords = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    shared = [parameter for parameter in keywords if parameter.name not in ("precision", "device")]
    assert {parameter.name for parameter in shared} <= {*stated}
    for parameter in shared:
        assert parameter.default == stated[parameter.name], parameter.name
