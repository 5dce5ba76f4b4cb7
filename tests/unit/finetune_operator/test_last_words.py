"""What the process says when it cannot continue: whoever reads the log of a pod that begins anew knows what to do."""

import logging
from contextlib import asynccontextmanager

import pytest

from finetune_operator import __main__ as process
from finetune_operator.handlers.watches import CannotWatch
from finetune_operator.runtime.errors import Forbidden, KubeError, NotFound
from finetune_operator.runtime.settings import Settings

SAID = (
    'secrets "finetune-operator-tls" is forbidden: User "system:serviceaccount:finetune-system:finetune-operator" '
    'cannot get resource "secrets" in API group "" in the namespace "finetune-system"'
)


async def last_words(error: KubeError, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> str:
    @asynccontextmanager
    async def refused(*_: object) -> None:  # type: ignore[misc]
        raise error
        yield

    monkeypatch.setattr(process.Kube, "connect", refused)
    with caplog.at_level(logging.ERROR):
        assert await process._main(Settings()) == process.FAILED
    return caplog.messages[-1]


async def test_a_right_that_is_missing_from_the_beginning_is_named_with_what_brings_it_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    said = await last_words(Forbidden(403, "Forbidden", SAID), monkeypatch, caplog)
    assert said.startswith(f"cannot continue: 403 Forbidden: {SAID}. ")
    assert "helm upgrade brings back those of the chart" in said


async def test_what_is_no_matter_of_rights_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert await last_words(NotFound(404, "NotFound", "no"), monkeypatch, caplog) == "cannot continue: 404 NotFound: no"


def test_a_watch_that_is_refused_is_told_in_the_same_way() -> None:
    refused = CannotWatch(f"pods: 403 {SAID}")
    assert "helm upgrade" in process._with_next_step(refused)
