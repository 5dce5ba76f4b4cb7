"""The port to the API server, against a real HTTP server that speaks the API's shapes."""

import asyncio

import fake_api
import pytest
from yarl import URL

from finetune_operator.runtime import connection, kube, metrics
from finetune_operator.runtime.errors import (
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeError,
    LeadershipLost,
    NoCluster,
    NotFound,
    TooManyRequests,
    Transient,
    Unadmitted,
)  # fmt: skip
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, JOBS, NAMESPACES, PODS, Resource, TokenIdentity
from finetune_operator.runtime.settings import Settings


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(connection.random, "uniform", lambda *_: 0.001)


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        (PODS, (), "/api/v1/pods"),
        (PODS, ("team", "a", "log"), "/api/v1/namespaces/team/pods/a/log"),
        (JOBS, ("team",), "/apis/batch/v1/namespaces/team/jobs"),
        (NAMESPACES, (None, "team"), "/api/v1/namespaces/team"),
        (NAMESPACES, ("ignored", "team"), "/api/v1/namespaces/team"),
        (FINE_TUNE_JOBS, ("team", "a.b-1", "status"),
         "/apis/finetune.dev/v1alpha1/namespaces/team/finetunejobs/a.b-1/status"),
        (Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", False), (None, "system:node"),
         "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node"),
    ],
)  # fmt: skip
def test_paths(resource, arguments, path):
    assert resource.path(*arguments) == path


@pytest.mark.parametrize("name", ["", "..", "a/b", "a?x=1", "a%2Fb", ".", "a b", "a\n"])
def test_a_name_that_would_change_the_path_is_refused(name):
    with pytest.raises(ValueError, match="cannot be a part of an API path"):
        JOBS.path("team", name)


async def test_get_gives_the_object_and_none_when_it_is_not_there(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"kind": "Job", "metadata": {"name": "a"}}).refuse(404, "NotFound", 'jobs.batch "b" not found')
        assert await client.get(JOBS, "a", "team") == {"kind": "Job", "metadata": {"name": "a"}}
        assert await client.get(JOBS, "b", "team") is None
        assert api.seen[0].headers["Authorization"] == "Bearer first"


@pytest.mark.parametrize("body", [b"<html>Sign in</html>", b"", b"[]"])
async def test_an_answer_that_is_no_object_is_an_error_of_the_api(tmp_path, body):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer(body)
        with pytest.raises(KubeError, match="not an object"):
            await client.get(JOBS, "a", "team")


async def test_list_reads_page_after_page_and_names_each_items_kind(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"metadata": {"continue": "next&=page"}, "items": [{"metadata": {"name": "a"}}]})
        api.answer({"metadata": {}, "items": [{"metadata": {"name": "b"}}]})
        items = await client.list(JOBS, label_selector="finetune.dev/job in (x,y)")
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert all((item["apiVersion"], item["kind"]) == ("batch/v1", "Job") for item in items)
    assert [s.query.get("continue") for s in api.seen] == [None, "next&=page"]
    assert {s.query["labelSelector"] for s in api.seen} == {"finetune.dev/job in (x,y)"}
    assert {s.path for s in api.seen} == {"/apis/batch/v1/jobs"}


async def test_a_list_whose_page_token_expired_is_read_anew_as_a_whole(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"metadata": {"continue": "old"}, "items": [{"metadata": {"name": "stale"}}]})
        api.refuse(410, "Expired", "The provided continue parameter is too old")
        api.answer({"metadata": {}, "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]})
        items = await client.list(JOBS)
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert "limit" not in api.seen[-1].query
    assert "continue" not in api.seen[-1].query


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [(400, "BadRequest", Invalid), (403, "Forbidden", Forbidden), (404, "NotFound", NotFound),
     (409, "Conflict", Conflict), (409, "AlreadyExists", Conflict), (410, "Gone", Gone), (422, "Invalid", Invalid),
     (413, "RequestEntityTooLarge", Invalid),
     (429, "TooManyRequests", TooManyRequests), (500, "InternalError", Transient), (503, "Unavailable", Transient),
     (405, "MethodNotAllowed", KubeError)],
)  # fmt: skip
async def test_each_refusal_is_its_own_error_and_keeps_the_servers_words(tmp_path, status, reason, error):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(status, reason, "spec.template: Required value")
        with pytest.raises(error) as caught:
            await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
        assert type(caught.value) is error
        assert (caught.value.status, caught.value.reason) == (status, reason)
        assert caught.value.message == "spec.template: Required value"
        assert len(api.seen) == 1, "a change must never be repeated by the client itself"


def owned_job(owner, **more):
    return {"metadata": {"name": "a", "namespace": "team", "ownerReferences": [{"uid": owner}]}, **more}


async def test_what_is_created_once_is_the_object_that_an_earlier_request_of_its_owner_made(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer(owned_job("u1")).refuse(409, "AlreadyExists").answer(owned_job("u1", status={"active": 1}))
        assert await client.create_once(JOBS, owned_job("u1")) == owned_job("u1")
        assert await client.create_once(JOBS, owned_job("u1")) == owned_job("u1", status={"active": 1})
    assert [request.method for request in api.seen] == ["POST", "POST", "GET"]


@pytest.mark.parametrize("now_there", [owned_job("another"), None], ids=["another's", "gone again"])
async def test_what_is_created_once_is_never_another_owners(tmp_path, now_there):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(409, "AlreadyExists")
        api.answer(now_there) if now_there else api.refuse(404, "NotFound")
        with pytest.raises(Conflict):
            await client.create_once(JOBS, owned_job("u1"))


async def test_a_field_that_apply_does_not_know_is_invalid_although_the_server_says_500(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(
            500, "", "failed to create typed patch object (a/b; /v1): .spec.selektor: field not declared in schema"
        )
        with pytest.raises(Invalid, match="selektor"):
            await client.apply(JOBS, {"metadata": {"name": "a", "namespace": "team"}})


async def test_what_etcd_finds_too_large_is_invalid_although_the_server_says_500(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(500, "", "etcdserver: request is too large")
        with pytest.raises(Invalid, match="too large"):
            await client.patch_status(FINE_TUNE_JOBS, "a", "team", {})


async def test_a_batch_job_that_etcd_finds_too_large_is_called_that_and_the_same_each_time(tmp_path):
    said = set()
    for uid in ("15545aa2", "f9ba1801"):
        labels = f"spec.template.metadata.labels[controller-uid]: Invalid value: {{}}: must be '{uid}'"
        selector = f'spec.selector: Invalid value: {{"controller-uid":"{uid}"}}: `selector` not auto-generated'
        async with fake_api.serve(tmp_path) as (api, client):
            api.refuse(422, "Invalid", f'Job.batch "a-1" is invalid: [{labels}, {selector}]')
            with pytest.raises(Invalid) as refused:
                await client.create(JOBS, {"metadata": {"name": "a-1", "namespace": "team"}})
        said.add(refused.value.message)
    (sentence,) = said
    assert sentence.startswith('Job.batch "a-1" is too large: etcd takes no object beyond 1.5 MiB')


async def test_what_a_proxy_answers_is_kept_as_the_message(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer(b"<html>bad gateway</html>", status=502)
        with pytest.raises(Transient, match="bad gateway"):
            await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})


async def test_reads_are_repeated_and_changes_are_not(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(500, "InternalError").refuse(429, "TooManyRequests").hang_up().answer({"kind": "Job"})
        assert await client.get(JOBS, "a", "team") == {"kind": "Job"}
        assert len(api.seen) >= 4  # aiohttp itself may repeat a GET whose connection broke


async def test_reads_give_up_in_the_end(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(503, "ServiceUnavailable", "etcd is away")
        with pytest.raises(Transient, match="etcd is away"):
            await client.list(JOBS)
        assert len(api.seen) == connection.READ_ATTEMPTS


async def test_a_dry_run_that_a_silent_webhook_holds_up_is_not_repeated_at_once(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(500, "InternalError", 'failed calling webhook "slow.example.com": context deadline exceeded')
        with pytest.raises(Unadmitted):
            await client.would_create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
        assert len(api.seen) == 1


async def test_a_long_retry_after_is_the_callers_matter(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(429, "TooManyRequests", headers={"Retry-After": "120"})
        with pytest.raises(TooManyRequests) as caught:
            await client.get(JOBS, "a", "team")
        assert caught.value.retry_after == 120
        assert len(api.seen) == 1


async def test_retry_after_also_comes_in_the_status_object(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(429, "TooManyRequests", details={"retryAfterSeconds": 77})
        with pytest.raises(TooManyRequests) as caught:
            await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
        assert caught.value.retry_after == 77


async def test_no_answer_is_a_transient_error(tmp_path):
    async with fake_api.serve(tmp_path, kube_timeout_seconds=1) as (api, client):
        api.hang()
        with pytest.raises(Transient, match="no answer within 1 s") as caught:
            await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
        assert caught.value.status == 0


async def test_a_server_that_is_away_is_a_transient_error(tmp_path, unused_tcp_port):
    text = fake_api.KUBECONFIG.format(url=f"http://127.0.0.1:{unused_tcp_port}", token=tmp_path / "token")
    (tmp_path / "token").write_text("t")
    (tmp_path / "kubeconfig").write_text(text)
    async with kube.Kube.connect(Settings(kubeconfig=tmp_path / "kubeconfig")) as client:
        with pytest.raises(Transient, match="Unreachable"):
            await client.delete(JOBS, "a", "team")


async def test_a_rotated_token_is_read_again(tmp_path):
    async with fake_api.serve(tmp_path, token="old") as (api, client):
        api.refuse(401, "Unauthorized").answer({"kind": "Job"})
        (tmp_path / "token").write_text("new")
        await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
        assert [s.headers["Authorization"] for s in api.seen] == ["Bearer old", "Bearer new"]


async def test_a_token_that_stays_refused_is_an_error(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(401, "Unauthorized", "Unauthorized")
        with pytest.raises(KubeError, match=r"Unauthorized.* delete the pod"):
            await client.get(JOBS, "a", "team")
        assert len(api.seen) == 2


async def test_apply_is_server_side_with_our_manager_and_refuses_unknown_fields(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"kind": "Job"})
        await client.apply(JOBS, {"metadata": {"name": "a", "namespace": "team"}, "spec": {"x": 1}})
    (first,) = api.seen
    assert (first.method, first.path) == ("PATCH", "/apis/batch/v1/namespaces/team/jobs/a")
    assert first.headers["Content-Type"] == "application/apply-patch+yaml"
    assert first.query == {"fieldManager": "finetune-operator", "fieldValidation": "Strict", "force": "true"}
    assert first.body["apiVersion"] == "batch/v1"
    assert first.body["kind"] == "Job"


async def test_status_is_replaced_as_a_whole_and_guarded_by_the_resource_version(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"kind": "FineTuneJob"}).refuse(409, "Conflict", "the object has been modified")
        await client.patch_status(FINE_TUNE_JOBS, "a", "team", {"phase": "Running"})
        with pytest.raises(Conflict):
            await client.patch_status(FINE_TUNE_JOBS, "a", "team", {"phase": "Running"}, resource_version="7")
    assert api.seen[0].path.endswith("/namespaces/team/finetunejobs/a/status")
    assert api.seen[0].headers["Content-Type"] == "application/json-patch+json"
    assert api.seen[0].body == [{"op": "add", "path": "/status", "value": {"phase": "Running"}}]
    assert api.seen[1].body[0] == {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"}


async def test_delete_says_whether_there_was_something_to_delete(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"kind": "Status"}).refuse(404, "NotFound")
        assert await client.delete(PODS, "a", "team", uid="u1", version="7")
        assert not await client.delete(PODS, "a", "team")
    assert api.seen[0].body == {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u1", "resourceVersion": "7"},
    }


@pytest.mark.parametrize(
    ("now_there", "result"),
    [({"metadata": {"uid": "other"}}, False), (None, False), ({"metadata": {"uid": "u1"}}, None)],
)
async def test_deleting_never_hits_a_successor_of_the_same_name(tmp_path, now_there, result):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(409, "Conflict", "the UID in the precondition does not match")
        api.answer(now_there) if now_there else api.refuse(404, "NotFound")
        if result is None:
            with pytest.raises(Conflict):
                await client.delete(JOBS, "a", "team", uid="u1")
        else:
            assert await client.delete(JOBS, "a", "team", uid="u1") is result


async def test_log_tail_keeps_the_end_within_the_bytes(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer(b"".join(b"line %d\n" % number for number in range(20_000)))
        tail = await client.pod_log_tail("team", "a", "trainer", lines=50, max_bytes=30)
        assert tail == "line 19997\nline 19998\nline 19999\n"[-30:]
    assert api.seen[0].query["tailLines"] == "50"
    assert api.seen[0].query["container"] == "trainer"


async def test_a_log_cut_inside_a_character_is_still_text_and_has_no_colours(tmp_path):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer("äöü\x1b[0m".encode())
        assert await client.pod_log_tail("team", "a", "trainer", lines=1, max_bytes=7) == "ü"


@pytest.mark.parametrize(("status", "reason"), [(404, "NotFound"), (400, "BadRequest")])
async def test_there_is_no_log_before_the_container_started(tmp_path, status, reason):
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(status, reason, "container is waiting to start: ContainerCreating")
        assert await client.pod_log_tail("team", "a", "trainer", 10, 1000) == ""


USER = {
    "username": "system:serviceaccount:team:trainer",
    "uid": "sa-uid",
    "groups": ["system:serviceaccounts"],
    "extra": {"authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["pu"]},
}


@pytest.mark.parametrize(
    ("status", "identity"),
    [
        ({"authenticated": True, "audiences": ["aud"], "user": USER},
         TokenIdentity("system:serviceaccount:team:trainer", "sa-uid", ("system:serviceaccounts",), "team", "trainer",
                       "p", "pu")),
        ({"authenticated": True, "audiences": ["aud"], "user": {"username": "alice"}}, TokenIdentity("alice", "")),
        ({"authenticated": True, "audiences": ["other"], "user": USER}, None),
        ({"authenticated": True, "user": USER}, None),
        ({"authenticated": False, "error": "expired"}, None),
        ({}, None),
    ],
)  # fmt: skip
async def test_token_review(tmp_path, status, identity):
    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"status": status}, status=201)
        assert await client.review_token("secret", "aud") == identity
    assert api.seen[0].body["spec"] == {"token": "secret", "audiences": ["aud"]}


async def test_the_guard_prevents_changes_and_lets_reads_pass(tmp_path):
    def lost():
        raise LeadershipLost("frozen")

    async with fake_api.serve(tmp_path) as (api, client):
        api.answer({"items": [], "status": {}})
        guarded = client.guarded(lost)
        body = {"metadata": {"name": "a", "namespace": "team"}}
        changes = [
            guarded.create(JOBS, body), guarded.apply(JOBS, body), guarded.delete(JOBS, "a", "team"),
            guarded.merge_patch(JOBS, "a", "team", body), guarded.patch_status(JOBS, "a", "team", {}),
        ]  # fmt: skip
        for change in changes:
            with pytest.raises(LeadershipLost):
                await change
        await guarded.get(JOBS, "a", "team")
        await guarded.list(JOBS)
        await guarded.review_token("t", "aud")
        assert {s.method for s in api.seen if "tokenreviews" not in s.path} == {"GET"}
        await client.create(JOBS, body)


async def test_the_clients_own_rate_limit_slows_down_and_is_counted(tmp_path):
    async with fake_api.serve(tmp_path, kube_qps=50, kube_burst=1) as (api, client):
        api.answer({"kind": "Job"})
        before = metrics.API_THROTTLED_SECONDS._value.get()
        loop = asyncio.get_running_loop()
        started = loop.time()
        await asyncio.gather(*[client.get(JOBS, "a", "team") for _ in range(6)])
        assert loop.time() - started >= 5 / 50 - 0.01
        assert metrics.API_THROTTLED_SECONDS._value.get() > before


async def test_requests_are_counted_by_verb_resource_and_code(tmp_path):
    counter = metrics.API_REQUESTS.labels("apply", "jobs", "422")
    before = counter._value.get()
    async with fake_api.serve(tmp_path) as (api, client):
        api.refuse(422, "Invalid", "nope")
        with pytest.raises(Invalid):
            await client.apply(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
    assert counter._value.get() == before + 1


@pytest.mark.parametrize("text", ["", "{}", "not: [yaml", "kind: Config\ncurrent-context: x\n"])
async def test_a_kubeconfig_that_cannot_be_used_is_said_to_be_so(tmp_path, text):
    (tmp_path / "kubeconfig").write_text(text)
    with pytest.raises(NoCluster):
        async with kube.Kube.connect(Settings(kubeconfig=tmp_path / "kubeconfig")):
            pass


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path):
    with pytest.raises(NoCluster, match="nowhere"):
        async with kube.Kube.connect(Settings(kubeconfig=tmp_path / "nowhere")):
            pass


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "10.0.0.1,.svc"}, None),
        ({"http_proxy": "http://proxy:3128"}, None),
    ],
)
def test_the_environments_proxy_is_looked_up_once(monkeypatch, variables, proxy):
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert connection.proxy_from_environment(URL("https://10.0.0.1:443")) == proxy


async def test_who_asks_the_api_server_by_the_environments_proxy_in_vain_is_told_of_no_proxy(tmp_path, monkeypatch):
    """HTTPS_PROXY is set for providers: without NO_PROXY nothing of the cluster is reached, and the pod ends."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with fake_api.serve(tmp_path) as (_, client):
        with pytest.raises(Transient, match=r"write 127\.0\.0\.1 into NO_PROXY$"):
            await client.create(JOBS, {"metadata": {"name": "a", "namespace": "team"}})
