"""Reasons, next steps and exit codes belong together: none is left over on either side."""

import re

import pytest

from finetune_api.exit_codes import REASON_OF_EXIT_CODE, ExitCode
from finetune_api.reasons import NEXT_STEP, Reason

FINE = {
    Reason.PENDING, Reason.VALIDATING, Reason.QUEUED, Reason.RUNNING, Reason.EVALUATING, Reason.RETRYING,
    Reason.SUSPENDED, Reason.SUCCEEDED, Reason.VALID, Reason.READY, Reason.DEPLOYING, Reason.NO_VERSION,
    Reason.IN_USE,
}  # fmt: skip
"""On its way, or where it should be: nobody has to do anything."""


def test_every_reason_that_needs_somebody_has_a_next_step_and_no_other() -> None:
    assert set(NEXT_STEP) == set(Reason) - FINE


@pytest.mark.parametrize("reason", list(Reason))
def test_a_reason_is_one_word_as_conditions_want_it(reason: Reason) -> None:
    assert re.fullmatch(r"[A-Z][A-Za-z]{2,63}", reason.value)


@pytest.mark.parametrize("step", NEXT_STEP.values())
def test_a_next_step_is_a_sentence_that_fits_status(step: str) -> None:
    assert step.endswith((".", ")"))
    assert len(step) <= 1024


def test_every_exit_code_but_those_of_success_and_bugs_has_a_reason() -> None:
    assert set(REASON_OF_EXIT_CODE) == set(ExitCode) - {ExitCode.OK, ExitCode.CRASHED, ExitCode.USAGE}


def test_two_exit_codes_never_mean_the_same() -> None:
    assert len(set(REASON_OF_EXIT_CODE.values())) == len(REASON_OF_EXIT_CODE)


@pytest.mark.parametrize("code", [code for code in ExitCode if code > ExitCode.USAGE])
def test_exit_codes_keep_clear_of_the_shells_own(code: ExitCode) -> None:
    assert 64 <= code <= 113
