"""What an LLMConnection's status says, when its credentials are checked again, and where its workspace leads."""

from typing import Any

import pytest

from finetune_api.azure import AzureResolved
from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide import connection as decide_connection
from finetune_operator.decide.connection import Checked, affects_nothing, check_is_due, pod_refused, with_resolved
from tests.unit.finetune_operator.decide.given import (
    NOW,
    SUBSCRIPTION,
    at,
    azure_connection,
    bedrock_connection,
    condition,
    connection,
    kstatus,
    openai_connection,
    stamp,
)


@pytest.mark.parametrize(
    ("spec", "reason", "for_tools"),
    [
        (connection(), "Ready", "Current"),
        (connection(namespaceSelector=None), "Ready", "Current"),
        (connection(fineTuning={"enabled": False}), "FineTuningDisabled", "Current"),
        (bedrock_connection(), "ProviderNotSupported", "Failed"),
        (None, "SpecInvalid", "Failed"),
    ],
)
def test_the_status_of_a_connection(spec: LLMConnectionSpec | None, reason: str, for_tools: str) -> None:
    status = decide_connection.decide(spec, "spec.x: wrong", LLMConnectionStatus(), generation=3, now=NOW)
    assert condition(status, "Ready").reason == reason
    assert kstatus(status, 3) == for_tools
    assert decide_connection.decide(spec, "spec.x: wrong", status, generation=3, now=at(60)) == status


CHECKS = {
    "good": (Checked(), "Ready", "True"),
    "bad": (Checked(Failure.because(Reason.CREDENTIALS_INVALID, "the key is refused")), "CredentialsInvalid", "False"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_status_of_a_connection_to_a_provider_follows_the_check_of_its_credentials(name: str) -> None:
    checked, reason, state = CHECKS[name]
    status = decide_connection.decide(
        openai_connection(), "", LLMConnectionStatus(), generation=1, now=NOW, checked=checked, retires="it closes"
    )
    told = condition(status, "Ready")
    assert (told.reason, told.status, status.last_checked) == (reason, state, stamp())
    assert condition(status, "Retiring").message == "it closes"
    later = decide_connection.decide(openai_connection(), "", status, generation=1, now=NOW, checked=checked)
    assert (condition(later, "Retiring").status, condition(later, "Ready")) == ("False", told)
    wait = decide_connection.check_is_due(status, generation=1, now=at(50))
    assert wait == (3550 if state == "True" else 10)
    assert decide_connection.check_is_due(status, generation=2, now=at(50)) == 0


LIMIT = Checked(Failure.because(Reason.RATE_LIMITED, "too many requests"))
BAD = CHECKS["bad"][0]
NO_SECRET = Checked(Failure.because(Reason.SECRET_NOT_FOUND, "there is none"))


@pytest.mark.parametrize(
    ("checks", "for_tools"),
    [
        ([LIMIT], "Failed"),
        ([Checked(), LIMIT], "InProgress"),
        ([Checked(), LIMIT, LIMIT], "InProgress"),
        ([Checked(), LIMIT, Checked()], "Current"),
        ([Checked(), BAD, LIMIT], "Failed"),
        ([NO_SECRET], "InProgress"),
        ([NO_SECRET, NO_SECRET], "Failed"),
        ([Checked(), NO_SECRET], "Failed"),
    ],
    ids=[
        *("it may be no address of the provider", "it was good", "it lasts", "it passed", "a bad key may be so still"),
        *("a Secret may come a little later", "it does not come", "it was deleted"),
    ],
)
def test_what_passes_by_itself_needs_nobody_where_the_connection_was_good(
    checks: list[Checked], for_tools: str
) -> None:
    status = LLMConnectionStatus()
    for checked in checks:
        status = decide_connection.decide(openai_connection(), "", status, generation=1, now=NOW, checked=checked)
    assert kstatus(status, 1) == for_tools
    edited = decide_connection.decide(openai_connection(), "", status, generation=2, now=NOW, checked=LIMIT)
    assert kstatus(edited, 2) == "Failed", "another address"


def test_what_should_pass_by_itself_and_lasts_needs_somebody() -> None:
    status, told = LLMConnectionStatus(), []
    for minute, checked in ((0, Checked()), (60, LIMIT), (69, LIMIT), (71, LIMIT)):
        now = at(60 * minute)
        status = decide_connection.decide(openai_connection(), "", status, generation=1, now=now, checked=checked)
        told.append(kstatus(status, 1))
    assert told == ["Current", "InProgress", "InProgress", "Failed"]


def test_a_day_that_an_admin_has_put_right_is_not_told_of_any_more() -> None:
    told, checked = LLMConnectionStatus(), Checked()
    for retires, state in (("it closes", "True"), (None, "False"), (None, "False"), ("it closes", "True")):
        told = decide_connection.decide(
            openai_connection(), "", told, generation=1, now=NOW, checked=checked, retires=retires
        )
        said = condition(told, "Retiring")
        assert (said.status, said.message) == (state, retires or "no last day is known")
    unknown = decide_connection.decide(None, "spec.x: wrong", told, generation=2, now=NOW)
    assert condition(unknown, "Retiring").status == "True", "of a spec that cannot be read nothing new is known"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (connection(), "jobs of every namespace may use it"),
        (connection(namespaceSelector={"matchLabels": {"team": "a"}}), "jobs may use it"),
        (connection(namespaceSelector=None), "no namespace may use it: spec.namespaceSelector is not set"),
        (connection(fineTuning={"enabled": False}), "deployments are served; new jobs are refused"),
        (
            connection(fineTuning={"allowedModels": []}),
            "no base model may be tuned: spec.fineTuning.allowedModels is empty",
        ),
    ],
)
def test_who_may_use_a_connection_is_said(spec: LLMConnectionSpec, said: str) -> None:
    status = decide_connection.decide(spec, "", LLMConnectionStatus(), generation=1, now=NOW)
    assert condition(status, "Ready").message == said


def test_a_selector_that_no_namespace_has_the_labels_of_is_told_and_looked_at_again_soon() -> None:
    status = decide_connection.decide(
        connection(), "", LLMConnectionStatus(), generation=1, now=NOW, checked=Checked(), nobody=True
    )
    ready = condition(status, "Ready")
    assert (ready.status, ready.message) == (
        "True",
        "no namespace may use it: none that the operator watches has the labels of spec.namespaceSelector",
    )
    assert check_is_due(status, generation=1, now=at(50)) == 10
    selected = decide_connection.decide(connection(), "", status, generation=1, now=at(60), checked=Checked())
    assert condition(selected, "Ready").message == "jobs of every namespace may use it"
    assert check_is_due(selected, generation=1, now=at(120)) > 60


@pytest.mark.parametrize(
    ("failure", "step"),
    [
        (Failure.because(Reason.BUCKET_NOT_FOUND, "gone"), "in the connection's region, or correct s3.bucket."),
        (Failure.because(Reason.PROVIDER_REFUSED, "no such account"), "account. Correct the connection: its address"),
        (pod_refused("spec.volumes: no"), "Correct huggingFace.podTemplate, or modelCache.volume, of the connection"),
        (Failure.because(Reason.CREDENTIALS_INVALID, "no"), "no. Correct or renew the keys in the connection's"),
        (Failure.because(Reason.SPEC_INVALID, "no such workspace"), "Correct what the message names; the connection"),
    ],
    ids=["bucket", "refused", "no pods", "keys", "a field"],
)
def test_what_keeps_a_connection_from_use_leads_to_its_own_mending(failure: Failure, step: str) -> None:
    status = decide_connection.decide(
        openai_connection(), "", LLMConnectionStatus(), generation=1, now=NOW, checked=Checked(failure)
    )
    assert step in condition(status, "Stalled").message


def test_a_status_names_provider_and_models_and_keeps_them_where_the_spec_cannot_be_read() -> None:
    limited = connection(fineTuning={"allowedModels": ["tiny/*"]})
    status = decide_connection.decide(limited, "", LLMConnectionStatus(), generation=1, now=NOW)
    unread = decide_connection.decide(None, "spec.x: wrong", status, generation=2, now=NOW)
    assert [(each.provider, each.models) for each in (status, unread)] == [("huggingFace", ["tiny/*"])] * 2


CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    "the time of a check": ({"last_checked": stamp(60)}, True),
    "another spec": ({"observed_generation": 2}, False),
    "it is ready": (
        {"conditions": decide_connection.merge(None, decide_connection.ready(Reason.READY), generation=1, now=NOW)},
        False,
    ),
    "where its workspace leads": ({"azure_open_ai": None}, False),
}
RESOLVED = AzureResolved(
    workspace="tuning",
    connection="openai",
    endpoint="https://found.openai.azure.com",
    subscription_id="found-sub",
    resource_group="found-group",
    account="found",
)
SEEN = LLMConnectionStatus(observed_generation=1, azure_open_ai=RESOLVED)


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_concerns_its_jobs_wakes_them(name: str) -> None:
    change, same = CHANGES[name]
    assert affects_nothing(SEEN, SEEN.model_copy(update=change)) is same


def test_a_check_of_a_time_to_come_holds_up_no_check() -> None:
    ahead = SEEN.model_copy(update={"last_checked": stamp(7200)})
    assert check_is_due(ahead, generation=1, now=NOW) == 0


def by_workspace(**fields: Any) -> LLMConnectionSpec:
    azure = {"workspace": {"name": "tuning", "connection": "openai"}, "credentials": {"workloadIdentity": True}}
    base = {"subscriptionID": SUBSCRIPTION, "resourceGroup": "group"}
    return LLMConnectionSpec.model_validate({"azureOpenAI": base | azure | fields})


def place(spec: LLMConnectionSpec) -> tuple[str | None, ...]:
    azure = spec.azure_open_ai
    assert azure is not None
    return azure.endpoint, azure.subscription_id, azure.resource_group, azure.account


FOUND = ("https://found.openai.azure.com", "found-sub", "found-group", "found")
LEADS: dict[str, tuple[LLMConnectionSpec, LLMConnectionStatus, tuple[str | None, ...]]] = {
    "found": (by_workspace(), SEEN, FOUND),
    "not found yet": (by_workspace(), LLMConnectionStatus(), (None, SUBSCRIPTION, "group", None)),
    "found for another workspace": (
        by_workspace(workspace={"name": "other", "connection": "openai"}),
        SEEN,
        (None, SUBSCRIPTION, "group", None),
    ),
    "found for another connection of it": (
        by_workspace(workspace={"name": "tuning", "connection": "other"}),
        SEEN,
        (None, SUBSCRIPTION, "group", None),
    ),
    "an account is written": (by_workspace(account="mine"), SEEN, (FOUND[0], SUBSCRIPTION, "group", "mine")),
    "an endpoint is written": (by_workspace(endpoint="https://gate"), SEEN, ("https://gate", *FOUND[1:])),
    "without a workspace": (azure_connection(), SEEN, ("https://res.openai.azure.com", SUBSCRIPTION, "group", "res")),
}


@pytest.mark.parametrize("name", LEADS)
def test_a_workspace_leads_where_it_was_found_to_and_what_is_written_counts(name: str) -> None:
    spec, status, leads = LEADS[name]
    assert place(with_resolved(spec, status)) == leads


@pytest.mark.parametrize("trial", ['Job.batch "finetune-trial-xvv9b" is invalid: ', ""])
def test_a_refused_pod_is_told_without_the_name_of_the_trial_which_is_another_one_each_time(trial: str) -> None:
    said = 'spec.template.spec.tolerations[0].operator: Unsupported value: "Equals"'
    assert pod_refused(f"{trial}{said}").message == f"the API server refuses its pods: {said}"
