"""What is refused, and in which words: connections that say no, and data that cannot be used."""

import gzip
import json
from collections.abc import Callable

import pytest

from tests.cluster import Cluster
from tests.e2e.site import Site, condition, eventually


@pytest.mark.parametrize(
    ("connection", "reason", "words"),
    [
        ("switched-off", "FineTuningDisabled", "switched off"),
        ("picky", "ModelNotAllowed", "meta-llama/*"),
    ],
)
def test_what_the_connection_does_not_allow_is_refused_without_a_pod(
    site: Site, connection: str, reason: str, words: str
) -> None:
    site.job(connection, connectionRef={"name": connection})
    failure = site.failed(connection)
    assert failure["reason"] == reason
    assert words in failure["message"]
    assert failure["nextStep"]
    assert not site.pods()


def test_a_namespace_that_the_connection_does_not_serve_is_told_so(make_site: Callable[..., Site]) -> None:
    outsider = make_site("outsider", labels={"finetune": "no"})
    outsider.job("outside")
    status = outsider.wait(
        "job",
        "outside",
        lambda s: condition(s, "Ready").get("reason") == "NamespaceNotAllowed",
        "to wait for the label",
    )
    assert (status["phase"], "outsider" in condition(status, "Ready")["message"]) == ("Pending", True)


def test_a_missing_connection_is_waited_for(site: Site, operator: Cluster) -> None:
    operator.kubectl("delete", "llmconnection", "late", "--ignore-not-found")
    site.job("early", connectionRef={"name": "late"})
    status = site.wait("job", "early", lambda s: s.get("phase") == "Pending" and s["observedGeneration"] > 0, "to wait")
    assert condition(status, "Reconciling")["reason"] == "ConnectionNotFound"
    assert "late" in condition(status, "Ready")["message"]
    connection = operator.get("llmconnection", "switched-off")
    spec = connection["spec"]
    operator.apply(
        {
            "apiVersion": "finetune.dev/v1alpha1",
            "kind": "LLMConnection",
            "metadata": {"name": "late"},
            "spec": spec,
        }
    )
    assert site.failed("early")["reason"] == "FineTuningDisabled"


BAD_DATA = {
    "compressed": (
        "bad.jsonl.gz",
        gzip.compress(b'{"prompt": "a", "completion": ""}\n', mtime=0),
        "line 1",
        "completion",
    ),
    "not-there": ("", b"", "gone.jsonl", ""),
}
"""One verdict and one missing file: what is wrong with rows of each format tests/unit says, without pods."""


@pytest.fixture(scope="module")
def bad(make_site: Callable[..., Site]) -> Site:
    """Both at once: their pods do not wait for one another."""
    place = make_site("bad-data")
    for name, (file, content, *_) in BAD_DATA.items():
        (place.data / name).mkdir()
        if file:
            (place.data / name / file).write_bytes(content)
        place.job(name, dataset={"train": {"uri": f"pvc://data/{name}/{file or 'gone.jsonl'}"}})
    return place


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_named_by_file_and_line(bad: Site, name: str) -> None:
    *_, where, what = BAD_DATA[name]
    failure = bad.failed(name)
    assert failure["reason"] == ("DatasetNotFound" if name == "not-there" else "DatasetInvalid")
    assert where in failure["message"]
    assert what in failure["message"] + failure["nextStep"]
    status = bad.status("job", name)
    assert condition(status, "Stalled")["status"] == "True"
    assert condition(status, "Failed")["status"] == "True"


def test_a_refused_job_leaves_no_pod(bad: Site) -> None:
    for name in BAD_DATA:
        bad.failed(name)
    eventually(lambda: not bad.pods(), "the pods to go", 120)


def test_a_model_that_is_not_in_the_cache_is_named_with_what_is_there(site: Site) -> None:
    site.job("typo", baseModel="test/tiny-lama")
    failure = site.failed("typo")
    assert failure["reason"] == "ModelNotInCache"
    assert "test/tiny-lama" in failure["message"]
    assert "test/tiny-llama" in failure["message"] + failure["nextStep"]


def test_the_data_itself_is_never_quoted(bad: Site) -> None:
    (bad.data / "secret.jsonl").write_text(json.dumps({"prompt": "my number is 0190-666", "completion": 7}) + "\n")
    bad.job("secret", dataset={"train": {"uri": "pvc://data/secret.jsonl"}})
    bad.failed("secret")
    job = bad.cluster.kubectl("-n", bad.name, "get", "ftj", "secret", "-o", "yaml")
    events = bad.cluster.kubectl("-n", bad.name, "get", "events", "-o", "yaml")
    logs = bad.cluster.kubectl("-n", "finetune-system", "logs", "-l", "app.kubernetes.io/name=finetune-operator")
    assert "0190-666" not in job + events + logs
