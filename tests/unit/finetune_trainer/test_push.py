"""Pushes to a registry and a hub: once, whole, without rows of the data, and never at the version's cost."""

import argparse
import base64
import json
import os
from collections import Counter
from pathlib import Path

import httpx
import pytest

from finetune_api.exit_codes import ExitCode
from finetune_api.names import HUB_TOKEN_VARIABLE, REGISTRY_KEYS_VARIABLE
from finetune_api.push import Push
from finetune_trainer import push
from finetune_trainer.errors import TrainerError
from finetune_trainer.output import registry
from finetune_trainer.output.pushes import push_all, require_keys
from finetune_trainer.output.registry import PushError, Reference, keys_for
from finetune_trainer.storage.durable import read_manifest, whole_folder
from tests.unit.finetune_trainer.fake_service import serving
from tests.unit.finetune_trainer.jobs import make_job
from tests.unit.finetune_trainer.push_targets import BASIC, PASSWORD, TOKEN, USER, FakeHub, FakeRegistry
from tests.unit.finetune_trainer.training_runs import do


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """No pauses between tries."""
    monkeypatch.setattr(registry.time, "sleep", lambda _seconds: None)


@pytest.fixture
def tuned(tmp_path):
    about = {"baseModel": "tiny/llama", "method": "LoRA", "created": "2026-11-26T01:02:03+00:00"}
    with whole_folder(tmp_path / "model", **about, job={"namespace": "team-a", "name": "job-1"}) as folder:
        (folder / "adapter_model.safetensors").write_bytes(os.urandom(3 << 20))
        (folder / "adapter_config.json").write_text("{}")
        (folder / "README.md").write_text("# A model")
        (folder / "evaluation.jsonl").write_text("the data's own words")
        (folder / "report.html").write_text("the data's own words")
    return tmp_path / "model"


@pytest.fixture
def place(monkeypatch):
    with serving(FakeRegistry()) as found:
        host = found.address.removeprefix("http://")
        monkeypatch.setenv(REGISTRY_KEYS_VARIABLE, json.dumps({"auths": {host: {"auth": BASIC}}}))
        yield found


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv(HUB_TOKEN_VARIABLE, TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with serving(FakeHub()) as found:
        yield found


def oci(place) -> Push:
    uri = f"oci://{place.address.removeprefix('http://')}/team/model:1"
    return Push.model_validate({"oci": {"uri": uri, "plainHTTP": True}})


def to_hub(place, **fields) -> Push:
    to = {"repository": "team/model", "tokenSecretRef": {"name": "hub", "key": "token"}, "endpointURL": place.address}
    return Push.model_validate({"huggingFace": to | fields})


# A registry.


def files_in(place) -> dict[str, bytes]:
    (manifest,) = (json.loads(text) for text in place.manifests.values())
    title = "org.opencontainers.image.title"
    return {layer["annotations"][title]: place.blobs[layer["digest"]] for layer in manifest["layers"]}


def test_a_registry_gets_the_model_as_modelpack_describes_it(place, tuned):
    (done,) = push_all(oci(place), tuned)
    assert (done.revision[:7], done.message) == ("sha256:", None)
    (manifest,) = (json.loads(text) for text in place.manifests.values())
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    kinds = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in manifest["layers"]}
    assert kinds == {
        "README.md": "application/vnd.cncf.model.doc.v1.raw",
        "adapter_config.json": "application/vnd.cncf.model.weight.config.v1.raw",
        "adapter_model.safetensors": "application/vnd.cncf.model.weight.v1.raw",
        "manifest.json": "application/vnd.cncf.model.weight.config.v1.raw",
    }
    config = json.loads(place.blobs[manifest["config"]["digest"]])
    assert config["descriptor"]["name"] == "team-a/job-1"
    assert len(config["modelfs"]["diffIds"]) == 4


def test_what_is_pulled_is_a_whole_artifact_without_rows_of_the_data(place, tuned, tmp_path):
    push_all(oci(place), tuned)
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name, content in files_in(place).items():
        (pulled / name).write_bytes(content)
    assert read_manifest(pulled)
    assert not any(b"own words" in blob for blob in place.blobs.values())


def test_a_second_push_finds_it_done(place, tuned):
    first = push_all(oci(place), tuned)
    place.asked.clear()
    assert push_all(oci(place), tuned) == first
    assert [method for method, _ in place.asked if method != "GET"] == ["HEAD", "HEAD"], "unauthorised, then the tag"


def test_a_push_that_was_cut_off_sends_only_what_is_missing(place, tuned):
    place.fault = lambda method, path: 400 if method == "PUT" and "/manifests/" in path else None
    (failed,) = push_all(oci(place), tuned)
    assert "the manifest (status 400)" in failed.message
    place.fault = lambda _method, _path: None
    place.asked.clear()
    (done,) = push_all(oci(place), tuned)
    assert done.revision
    assert {path for method, path in place.asked if method == "PUT"} == {"/v2/team/model/manifests/1"}


@pytest.mark.parametrize("fault", ["break", 503, 429])
def test_what_may_pass_is_tried_again(place, tuned, fault):
    left = Counter(blobs=3)

    def some(method, path):
        if method == "PUT" and "/uploads/" in path and left["blobs"]:
            left["blobs"] -= 1
            return fault
        return None

    place.fault = some
    (done,) = push_all(oci(place), tuned)
    assert done.revision
    assert files_in(place)["adapter_model.safetensors"] == (tuned / "adapter_model.safetensors").read_bytes()


def test_a_token_that_expires_in_the_middle_is_renewed(place, tuned):
    sent = Counter()

    def expires(method, path):
        sent[path] += method == "PUT"
        if method == "PUT" and sent[path] == 1:
            place.forget_tokens()

    place.fault = expires
    (done,) = push_all(oci(place), tuned)
    assert done.revision
    assert set(sent.values()) == {0, 2}


def test_a_registry_that_takes_user_and_password_themselves(place, tuned):
    place.scheme = "basic"
    assert push_all(oci(place), tuned)[0].revision


def answering(says):
    """Spoils what the registry says: `says` is given a path, and gives an answer or None."""

    def spoil(place, monkeypatch):
        before = place.answer
        monkeypatch.setattr(place, "answer", lambda method, path, *rest: says(path) or before(method, path, *rest))

    return spoil


FAULTS = {
    "a place that is none": (
        answering(lambda path: (202, {"Location": "http://["}, b"") if path.endswith("/uploads/") else None),
        "names no place to upload to",
    ),
    "a token that is none": (
        answering(lambda path: (200, {}, b'["a token"]') if path.startswith("/token") else None),
        "gives no token",
    ),
    "no keys": (
        lambda _, env: env.setenv(REGISTRY_KEYS_VARIABLE, '{"auths": {}}'),
        "asks for keys, and there are none",
    ),
    "wrong keys": (lambda place, _: setattr(place, "fault", lambda _m, _p: 401), "the registry refuses its keys"),
    "keys that only read": (
        lambda place, _: setattr(place, "fault", lambda m, _p: 403 if m == "POST" else None),
        "does not let these keys push to team/model",
    ),
    "no config": (lambda _, env: env.setenv(REGISTRY_KEYS_VARIABLE, "a password"), "no docker config.json"),
    "no repository": (
        lambda place, _: setattr(place, "fault", lambda m, _p: 404 if m == "POST" else None),
        "status 404",
    ),
    "away": (lambda place, _: setattr(place, "fault", lambda _m, _p: "break"), "does not answer as it should"),
    "busy": (lambda place, _: setattr(place, "fault", lambda _m, _p: 500), "(status 500)"),
}


@pytest.mark.parametrize("how", FAULTS)
def test_a_push_that_fails_says_why_and_what_to_do(place, tuned, monkeypatch, how, caplog):
    spoils, said = FAULTS[how]
    spoils(place, monkeypatch)
    (failed,) = push_all(oci(place), tuned)
    assert failed.revision is None
    assert said in failed.message
    assert "finetune-trainer push" in failed.next_step
    assert PASSWORD not in caplog.text + failed.message
    assert not place.manifests


def test_a_registry_without_tls_is_told_the_field_for_it(place, tuned):
    uri = f"oci://{place.address.removeprefix('http://')}/team/model:1"
    (failed,) = push_all(Push.model_validate({"oci": {"uri": uri}}), tuned)
    assert "it does not speak TLS; plainHTTP: true (--plain-http)" in failed.message


def test_keys_are_not_sent_to_another_place_that_the_registry_names_for_an_upload(place, tuned, monkeypatch):
    heard = []
    elsewhere = FakeRegistry()
    elsewhere.answer = lambda _method, _path, headers, _body: heard.append(headers["Authorization"]) or (201, {}, b"")
    with serving(elsewhere):
        there = {"Location": f"{elsewhere.address}/signed"}
        answering(lambda path: (202, there, b"") if path.endswith("/uploads/") else None)(place, monkeypatch)
        push_all(oci(place), tuned)
    assert set(heard) == {None}, "an address that is signed wants no keys"


def test_nothing_is_uploaded_without_tls_to_a_registry_that_has_it():
    begun = httpx.Response(
        202, headers={"Location": "http://ghcr.io/up"}, request=httpx.Request("POST", "https://ghcr.io/v2/x/")
    )
    with pytest.raises(PushError, match="without TLS"):
        registry._upload_to(begun)


def test_keys_are_not_sent_without_tls_unless_the_job_says_so():
    keys = registry._Keys((USER, PASSWORD), httpx.URL("https://ghcr.io/v2/team/model/"))
    with pytest.raises(PushError, match="without TLS"):
        keys._token_request('Bearer realm="http://elsewhere/token",service="x"')


@pytest.mark.parametrize(
    ("uri", "host", "repository", "tag"),
    [
        ("oci://ghcr.io/team/model:1", "ghcr.io", "team/model", "1"),
        ("oci://127.0.0.1:5000/a/b/c:v1.0", "127.0.0.1:5000", "a/b/c", "v1.0"),
        ("oci://docker.io/model:1", "registry-1.docker.io", "library/model", "1"),
        ("oci://docker.io/me/model:1", "registry-1.docker.io", "me/model", "1"),
    ],
)
def test_a_reference_is_host_repository_and_tag(uri, host, repository, tag):
    assert Reference.parse(uri) == Reference(host, repository, tag)


@pytest.mark.parametrize(
    ("auths", "host", "found"),
    [
        ({"ghcr.io": {"auth": BASIC}}, "ghcr.io", (USER, PASSWORD)),
        ({"https://ghcr.io/v2/": {"username": USER, "password": "a:b"}}, "ghcr.io", (USER, "a:b")),
        ({"https://index.docker.io/v1/": {"auth": BASIC}}, "registry-1.docker.io", (USER, PASSWORD)),
        ({"ghcr.io": {"auth": base64.b64encode(b"me:a:b").decode()}}, "ghcr.io", ("me", "a:b")),
        ({"elsewhere.io": {"auth": BASIC}}, "ghcr.io", None),
    ],
)
def test_keys_are_those_of_the_registry(auths, host, found):
    assert keys_for(host, json.dumps({"auths": auths})) == found


def test_a_file_that_is_gone_costs_the_push_alone(place, tuned):
    (tuned / "adapter_model.safetensors").unlink()
    (failed,) = push_all(oci(place), tuned)
    assert "cannot be read: No such file" in failed.message


# A hub.


def test_a_token_may_end_with_a_line_break_as_files_do(hub, tuned, monkeypatch):
    monkeypatch.setenv(HUB_TOKEN_VARIABLE, f"{TOKEN}\n")
    assert push_all(to_hub(hub), tuned)[0].revision == hub.commits[0]


def test_a_hub_gets_the_model_in_one_commit_privately_and_without_rows_of_the_data(hub, tuned, tmp_path):
    (done,) = push_all(to_hub(hub), tuned)
    assert (done.message, done.target, done.revision) == (None, "hf://team/model", hub.commits[0])
    assert hub.private is True
    pulled = tmp_path / "pulled"
    pulled.mkdir()
    for name, content in hub.files.items():
        (pulled / name).write_bytes(content)
    assert read_manifest(pulled)
    assert not {"evaluation.jsonl", "report.html"} & set(hub.files)
    assert hub.files["adapter_model.safetensors"] == (tuned / "adapter_model.safetensors").read_bytes()


def test_a_second_push_to_a_hub_makes_no_second_commit(hub, tuned):
    first = push_all(to_hub(hub), tuned)
    assert push_all(to_hub(hub), tuned) == first
    assert len(hub.commits) == 1


def test_a_public_repository_gets_nothing_unless_the_job_says_so(hub, tuned):
    hub.private = False
    (refused,) = push_all(to_hub(hub), tuned)
    assert "the repository is public" in refused.message
    assert not hub.files
    assert push_all(to_hub(hub, private=False), tuned)[0].revision == hub.commits[0]


def test_a_hub_that_refuses_is_said_without_its_own_words(hub, tuned, monkeypatch):
    monkeypatch.setenv(HUB_TOKEN_VARIABLE, "another-token")
    (failed,) = push_all(to_hub(hub), tuned)
    assert "the hub does not take it" in failed.message
    assert "status 401" in failed.message
    assert "another-token" not in failed.message


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "does not accept the token"), (403, "the token may not write to team/model"), (429, "push later")],
)
def test_why_a_hub_does_not_take_it_is_said_in_words(hub, tuned, monkeypatch, status, said):
    monkeypatch.setattr(hub, "answer", lambda *_: (status, {}, b""))
    (failed,) = push_all(to_hub(hub), tuned)
    assert said in failed.message
    assert failed.message.endswith(f"status {status})")


# A run, and the command.


def test_a_push_that_fails_does_not_lose_the_version_and_the_next_attempt_makes_it(place, hub, tiny_model, tmp_path):
    both = oci(place).wire() | to_hub(hub).wire()
    job = make_job(tmp_path / "job", tiny_model, hyperparameters={"epochs": 1}, artifact={"push": both})
    place.fault = lambda _method, _path: 500
    code, report, _ = do(job)
    assert code == ExitCode.OK
    assert read_manifest(Path(job.output) / "model")
    registry_said, hub_said = report.result.pushes
    assert "status 500" in registry_said.message
    assert hub_said.revision == hub.commits[0]
    place.fault = lambda _method, _path: None
    _, again, _ = do(job)
    assert again.result.pushes[0].revision.startswith("sha256:")
    assert again.result.pushes[1].revision == hub.commits[0]


def command(folder, to, **flags) -> int:
    return push.main(argparse.Namespace(folder=folder, to=to, **({"plain_http": True, "public": False} | flags)))


def test_the_command_pushes_a_folder_that_is_there(place, tuned, capsys):
    assert command(tuned, oci(place).oci.uri) == ExitCode.OK
    assert "/team/model:1 is sha256:" in capsys.readouterr().out
    place.fault = lambda _method, _path: 500
    assert command(tuned, oci(place).oci.uri) == ExitCode.SERVICE_UNAVAILABLE
    said = capsys.readouterr().err  # of a job's fields nobody knows here, and this is the command itself
    assert "`docker login`" in said
    assert "artifact.push" not in said
    assert "`finetune-trainer push`" not in said
    assert command(tuned.parent, oci(place).oci.uri) == ExitCode.MODEL_UNUSABLE


@pytest.mark.parametrize(
    "to", ["oci://ghcr.io/Team/model:1", "oci://ghcr.io/model", "hf://model", "s3://a/b", "ghcr.io/a:1"]
)
def test_the_command_says_how_a_place_is_written(tuned, to, capsys):
    assert command(tuned, to) == ExitCode.SPEC_INVALID
    assert "oci://REGISTRY/REPOSITORY:TAG or hf://OWNER/NAME" in capsys.readouterr().err


# Before the training.

BOTH = Push.model_validate(
    {
        "oci": {"uri": "oci://ghcr.io/team/model:1", "secretRef": {"name": "registry"}},
        "huggingFace": {"repository": "team/model", "tokenSecretRef": {"name": "hub", "key": "token"}},
    }
)
OCI, HUB = "spec.artifact.push.oci.secretRef: ", "spec.artifact.push.huggingFace.tokenSecretRef: "
GOOD_KEYS = json.dumps({"auths": {"ghcr.io": {"auth": BASIC}}})
WRONG_SECRETS = {
    "another registry": ('{"auths": {"quay.io": {}}}', TOKEN, f"{OCI}Secret registry has credentials for quay.io, and "
                         "none for ghcr.io"),
    "no registry": ('{"auths": {}}', TOKEN, f"{OCI}Secret registry has credentials for no registry, and none for "),
    "no config": ("a password", TOKEN, f"{OCI}Secret registry: the Secret for the registry holds no docker config"),
    "a list": ('{"auths": []}', TOKEN, f"{OCI}Secret registry: the Secret for the registry holds no docker config"),
    "empty": ("", TOKEN, f"{OCI}Secret registry: "),
    "no password": ('{"auths": {"ghcr.io": {}}}', TOKEN, f"{OCI}Secret registry: "),
    "no token": (GOOD_KEYS, "\n", f"{HUB}the key token of Secret hub is empty"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_SECRETS)
def test_a_secret_that_will_open_nothing_is_told_before_the_training(name, monkeypatch):
    keys, token, said = WRONG_SECRETS[name]
    monkeypatch.setenv(REGISTRY_KEYS_VARIABLE, keys)
    monkeypatch.setenv(HUB_TOKEN_VARIABLE, token)
    with pytest.raises(TrainerError) as refused:
        require_keys(BOTH)
    assert refused.value.message.startswith(said), refused.value.message
    assert "spec.retryNonce" in (refused.value.next_step or "")


def test_secrets_that_may_do_are_left_to_the_push(monkeypatch):
    require_keys(None)
    require_keys(BOTH)  # at a shell, where docker and the hub have logins of their own
    monkeypatch.setenv(REGISTRY_KEYS_VARIABLE, GOOD_KEYS)
    monkeypatch.setenv(HUB_TOKEN_VARIABLE, TOKEN)
    require_keys(BOTH)
