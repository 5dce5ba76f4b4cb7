"""Names within their limits, pods that meet the restricted standard, volumes mounted once."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.names import DIGEST_ANNOTATION
from finetune_api.uris import parse_artifact_uri, parse_uri
from finetune_operator.desired import names, pod
from finetune_operator.desired.compare import covers, stamped
from tests.unit.finetune_operator.desired.given_names import LONG_NAME
from tests.unit.finetune_operator.desired.given_pods import TEMPLATE, hugging_face, restricted

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?)?", fullmatch=True)


@pytest.mark.parametrize("name", ["a", "sentiment-1", "a" * 63])
def test_a_name_that_fits_stays(name: str) -> None:
    assert names.fit(name) == name


@given(NAMES, st.integers(1, 9999))
def test_names_of_children_are_dns_labels(name: str, attempt: int) -> None:
    assert LABEL.fullmatch(names.fit(name))
    assert LABEL.fullmatch(names.training_job(name, attempt))


@given(st.lists(NAMES, unique=True, min_size=2, max_size=2), st.integers(1, 20), st.integers(1, 20))
def test_two_jobs_never_share_a_child(pair: list[str], one: int, other: int) -> None:
    assert names.fit(pair[0]) != names.fit(pair[1])
    if names.training_job(pair[0], one) == names.training_job(pair[1], other):
        # job "a-1" and attempt 2 of job "a" differ by what follows; only digits after the last dash could meet
        pytest.fail(f"{pair} {one} {other}")


def test_dots_and_dashes_are_told_apart() -> None:
    assert len({names.fit(name) for name in ("a.b", "a-b", "a.b.", "a..b")}) == 4


def test_the_output_folder_is_the_jobs_own() -> None:
    where = {"namespace": "team-a", "model": "sentiment"}
    root = parse_artifact_uri("pvc://models/tuned")
    first = names.output_uri(root, job="s", uid="11111111-2", **where)
    again = names.output_uri(root, job="s", uid="22222222-2", **where)
    assert first == "pvc://models/tuned/team-a/sentiment/s-11111111"
    assert first != again
    assert names.claim_path(parse_artifact_uri(first)) == (
        "/var/lib/finetune/claims/models/tuned/team-a/sentiment/s-11111111"
    )
    plain = names.output_uri(parse_artifact_uri("pvc://models"), job=LONG_NAME, uid="1" * 36, **where)
    assert plain.startswith("pvc://models/team-a/sentiment/")
    assert max(map(len, plain.split("/"))) <= 63


# Pods.


def test_a_pod_is_restricted_and_takes_what_the_connection_adds() -> None:
    spec = pod.pod_spec(hugging_face(podTemplate=TEMPLATE), {"name": "c", "image": "i"}, pod.Volumes())
    restricted(spec)
    for field in ("nodeSelector", "tolerations", "affinity", "runtimeClassName", "priorityClassName"):
        assert spec[field] == TEMPLATE[field]
    assert spec["serviceAccountName"] == "trainer"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert not spec.keys() & {"queueName", "labels", "annotations", "resources"}


def test_all_containers_of_a_pod_trust_the_connections_bundle() -> None:
    template = {"caBundleRef": {"name": "company-ca", "key": "ca.crt"}}
    own = {"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}]}
    first = {"name": "first", "image": "i"}
    spec = pod.pod_spec(hugging_face(podTemplate=template), own, pod.Volumes(), before=[first])
    restricted(spec)
    for container in (*spec["containers"], *spec["initContainers"]):
        variables = {one["name"]: one["value"] for one in container["env"]}
        file = variables["SSL_CERT_FILE"]
        assert {variables[name] for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")} == {file}
        [mount] = [one for one in container["volumeMounts"] if file.startswith(one["mountPath"])]
        assert mount["readOnly"]
        [volume] = [one for one in spec["volumes"] if one["name"] == mount["name"]]
        item = {"key": "ca.crt", "path": file.removeprefix(mount["mountPath"] + "/")}
        assert volume["configMap"] == {"name": "company-ca", "items": [item]}
    assert {"name": "A", "value": "b"} in spec["containers"][0]["env"]


@pytest.mark.parametrize("text", ["a$$b", "$(HOME)", "$$(HOME)", "$", "$$$", "5 $ (about)", "x"])
def test_arguments_and_variables_mean_what_is_written_however_many_dollars_are_in_it(text: str) -> None:
    own = {"name": "c", "image": "i", "args": ["serve", text], "env": [{"name": "A", "value": text}]}
    spec = pod.pod_spec(hugging_face(), own, pod.Volumes(), before=[own])
    for container in (*spec["containers"], *spec["initContainers"]):
        assert [expanded(one) for one in container["args"]] == ["serve", text]
        assert expanded(container["env"][0]["value"]) == text
    assert own["args"] == ["serve", text], "nobody else's is changed"


def expanded(text: str) -> str:
    """As a kubelet reads it, where every variable is known."""
    return re.sub(r"[$]([$]|[(]([^)]*)[)])", lambda found: "$" if found[1] == "$" else f"value of {found[2]}", text)


def test_our_labels_win_over_the_connections() -> None:
    metadata = pod.pod_metadata(hugging_face(podTemplate=TEMPLATE), pod.labels())
    assert metadata["labels"] == {"team": "a", "app.kubernetes.io/managed-by": "finetune-operator"}
    assert metadata["annotations"] == {"note": "x"}
    assert pod.pod_metadata(hugging_face(), {"a": "b"}) == {"labels": {"a": "b"}}


@pytest.mark.parametrize(
    "name", ["finetune.dev/job", "finetune.dev/deployment", "finetune.dev/later", "app.kubernetes.io/component"]
)
def test_a_connection_cannot_give_its_pods_a_label_by_which_others_are_found(name: str) -> None:
    template = {"labels": {name: "sentiment", "example.com/a": "b"}}
    assert pod.pod_metadata(hugging_face(podTemplate=template), {"x": "y"})["labels"] == {
        "x": "y",
        "example.com/a": "b",
    }


@pytest.mark.parametrize("write_first", [True, False])
def test_a_claim_that_holds_data_and_artifacts_is_mounted_once_and_writable(write_first: bool) -> None:
    volumes = pod.Volumes()
    data = [parse_uri("pvc://shared/train.jsonl"), parse_uri("pvc://shared/test.jsonl")]
    if write_first:
        volumes.claim("shared", read_only=False)
        volumes.dataset(data)
    else:
        volumes.dataset(data)
        volumes.claim("shared", read_only=False)
    mounts = [m for m in volumes.mounts() if m["mountPath"].endswith("/shared")]
    assert mounts == [{"name": "v1", "mountPath": "/var/lib/finetune/claims/shared"}]
    assert len(volumes.sources()) == 2


def test_data_is_read_only_and_what_is_fetched_needs_no_volume() -> None:
    volumes = pod.Volumes()
    uris = ("pvc://data/a.csv", "configmap://rows/b.csv", "s3://bucket/c.csv", "https://host/d.csv")
    volumes.dataset(parse_uri(uri) for uri in uris)
    found = {mount["mountPath"]: mount.get("readOnly", False) for mount in volumes.mounts()}
    assert found == {
        "/tmp": False,
        "/var/lib/finetune/claims/data": True,
        "/var/lib/finetune/configmaps/rows": True,
    }


# Comparing.


@pytest.mark.parametrize(
    ("present", "wanted", "same"),
    [
        ({"a": 1, "added": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": 1}, False),
        (None, {"a": 1}, False),
        (None, {}, True),
        ({"x": 1}, {}, True),
        ([1], {}, False),
        ([{"a": 1, "b": 2}], [{"a": 1}], True),
        ([{"a": 1}, {"b": 1}], [{"a": 1}], False),
        ([], [], True),
        (None, [], True),
        ([1], [], False),
        ("x", [], False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        (None, None, True),
        (0, False, True),
        ("1", 1, False),
    ],
)
def test_whether_all_that_is_wanted_is_there(present: Any, wanted: Any, same: bool) -> None:
    assert covers(present, wanted) is same


def test_a_field_that_is_not_wanted_any_more_is_a_difference() -> None:
    before = stamped({"metadata": {"name": "x"}, "spec": {"a": 1, "b": 2}})
    after = stamped({"metadata": {"name": "x"}, "spec": {"a": 1}})
    assert covers(before, before)
    assert not covers(before, after)
    assert after["metadata"]["annotations"].keys() == {DIGEST_ANNOTATION}


def test_the_digest_does_not_depend_on_the_order_of_fields_and_keeps_annotations() -> None:
    one = stamped({"metadata": {"name": "x", "annotations": {"a": "b"}}, "spec": {"a": 1, "b": 2}})
    two = stamped({"spec": {"b": 2, "a": 1}, "metadata": {"annotations": {"a": "b"}, "name": "x"}})
    assert one == two
    assert one["metadata"]["annotations"]["a"] == "b"
