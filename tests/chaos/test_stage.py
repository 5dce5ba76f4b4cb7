"""Whichever tests are selected, what they look at has been performed."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.chaos import test_crashes, test_crashes_at_providers
from tests.chaos.stage import selected

MODULES = [test_crashes, test_crashes_at_providers]


def item(module: Any, **params: Any) -> Any:
    """A test of a module as pytest has collected it."""
    return SimpleNamespace(module=module, fixturenames=("outcome",), callspec=SimpleNamespace(params=params))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_crash_that_is_selected_alone_brings_the_life_that_nobody_disturbs(module: Any) -> None:
    for fault in module.FAULTS:
        beside = selected([item(module, fault=fault)])[0]
        assert {(module.__name__, fault), (module.__name__, fault.life)} <= set(beside)


def test_a_crash_at_a_provider_brings_no_other_life() -> None:
    fault = test_crashes_at_providers.FAULTS[0]
    beside, calm, alone = selected([item(test_crashes_at_providers, fault=fault)])
    name = test_crashes_at_providers.__name__
    assert (set(beside), calm, alone) == ({(name, fault), (name, fault.life)}, {}, {})
