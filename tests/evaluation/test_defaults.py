"""The defaults of the functions: those of config.yaml."""

import inspect

import pytest

from slpd_core.evaluation import classifiers, folds, training

SECTIONS = [
    ("folds", folds.make_folds),
    ("folds", folds.group_slides),
    ("folds", folds.require_folds),
    ("evaluate", classifiers.fit_classifier),
    ("evaluate", training.train_network),
]


@pytest.mark.parametrize(("section", "function"), SECTIONS, ids=[function.__name__ for _, function in SECTIONS])
def test_a_keyword_has_the_value_of_config_yaml(settings, section, function):
    stated = getattr(settings, section).model_dump()
    keywords = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    assert keywords
    for parameter in keywords:
        if parameter.name != "validation":  # of evaluate.select: the slides themselves
            assert parameter.default == stated[parameter.name], parameter.name
