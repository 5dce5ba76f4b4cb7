"""The OpenAI simulator, driven by OpenAI's own SDK."""

import base64
import csv
import io
import json
from decimal import Decimal

import httpx2
import openai
import pytest

from tests.simulators.clock import DAY, HOUR
from tests.simulators.openai import Failure, OpenAISimulator

MINI = "gpt-4o-mini-2024-07-18"


def rows(count: int) -> bytes:
    lines = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(count)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def simulator() -> OpenAISimulator:
    return OpenAISimulator()


@pytest.fixture
def client(simulator, start):
    own = {"organization": "org-simulated", "project": "proj-simulated"}
    url = start(simulator) + "/v1"
    with openai.OpenAI(api_key="sk-simulated", base_url=url, max_retries=0, timeout=5, **own) as client:
        yield client


def upload(client, content: bytes = rows(12), name: str = "train.jsonl") -> str:
    return client.files.create(file=(name, content), purpose="fine-tune").id


def tune(client, **more):
    return client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=upload(client), **more)


def refused(call) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    return caught.value


def test_a_job_goes_through_its_states_to_a_model_that_answers(simulator, client):
    job = tune(client, suffix="mood", method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}})
    assert (job.status, job.model, job.fine_tuned_model) == ("validating_files", MINI, None)
    simulator.advance(60)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "queued"
    simulator.advance(120)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    simulator.advance(24)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert job.status == "succeeded"
    assert job.hyperparameters.n_epochs == 2
    assert job.fine_tuned_model == f"ft:{MINI}:simulated:mood:{job.id[-8:]}"
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=[{"role": "user", "content": "question 3"}]
    )
    assert answer.choices[0].message.content == "answer 3"


def test_only_the_tuned_model_knows_its_training_data(simulator, client):
    tune(client)
    simulator.advance(HOUR)
    said = client.chat.completions.create(model=MINI, messages=[{"role": "user", "content": "question 3"}])
    assert said.choices[0].message.content == "question 3"


def test_an_answer_is_streamed_with_its_usage(simulator, client):
    job = tune(client)
    simulator.advance(HOUR)
    name = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    chunks = list(client.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "question 11"}], stream=True,
        stream_options={"include_usage": True},
    ))  # fmt: skip
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "answer 11"
    assert chunks[-1].usage.total_tokens > 0


def test_losses_come_as_events_checkpoints_and_a_table(simulator, client):
    validation = upload(client, rows(3), "valid.jsonl")
    job = tune(client, validation_file=validation)
    simulator.advance(HOUR)
    job = client.fine_tuning.jobs.retrieve(job.id)
    events = [event for event in client.fine_tuning.jobs.list_events(job.id, limit=7) if event.type == "metrics"]
    assert [event.data["step"] for event in events] == list(range(36, 0, -1))
    points = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert [point.step_number for point in points] == [36, 24, 12]
    assert all(point.metrics.full_valid_loss for point in points)
    text = base64.b64decode(client.files.content(job.result_files[0]).read()).decode()
    table = list(csv.DictReader(io.StringIO(text)))
    assert len(table) == 36
    assert float(table[-1]["train_loss"]) == events[0].data["train_loss"]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])


def test_a_checkpoint_can_be_asked(simulator, client):
    job = tune(client)
    simulator.advance(HOUR)
    name = client.fine_tuning.jobs.checkpoints.list(job.id).data[0].fine_tuned_model_checkpoint
    said = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "question 1"}])
    assert said.choices[0].message.content == "answer 1"


def test_trained_tokens_and_answers_are_billed(simulator, client):
    job = tune(client)
    assert simulator.cost() == 0
    simulator.advance(HOUR)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert simulator.cost(job.id) == Decimal(3) * job.trained_tokens / 10**6
    client.chat.completions.create(model=job.fine_tuned_model, messages=[{"role": "user", "content": "question 1"}])
    assert simulator.cost(job.fine_tuned_model) > 0


def test_what_is_left_is_seen_until_it_is_deleted(simulator, client):
    job = tune(client)
    simulator.advance(HOUR)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert {resource.kind for resource in simulator.left()} == {"file", "model"}
    assert client.models.delete(job.fine_tuned_model).deleted
    for file in client.files.list():
        assert client.files.delete(file.id).deleted
    assert simulator.left() == []
    assert refused(lambda: client.models.delete(job.fine_tuned_model)).code == "model_not_found"


def test_a_job_is_found_by_its_metadata_over_pages(simulator, client):
    simulator.set(job_limit=100)
    file = upload(client)
    made = [client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file, metadata={"uid": str(n % 2)})
            for n in range(6)]  # fmt: skip
    found = list(client.fine_tuning.jobs.list(metadata={"uid": "1"}, limit=2))
    assert [job.id for job in found] == [made[n].id for n in (5, 3, 1)]


def test_a_compatible_server_that_does_not_know_the_filter(simulator, client):
    simulator.set(ignore_metadata_filter=True)
    job = tune(client, metadata={"uid": "1"})
    assert [found.id for found in client.fine_tuning.jobs.list(metadata={"uid": "2"})] == [job.id]


def test_a_list_lags_behind(simulator, client):
    simulator.set(list_lag_seconds=30)
    job = tune(client)
    assert list(client.fine_tuning.jobs.list()) == list(client.files.list()) == []
    assert client.fine_tuning.jobs.retrieve(job.id).id == job.id
    simulator.advance(30)
    assert [found.id for found in client.fine_tuning.jobs.list()] == [job.id]


def test_a_cancelled_job_is_billed_for_its_steps_only(simulator, client):
    job = tune(client)
    simulator.advance(60 + 120 + 18)
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    simulator.advance(HOUR)
    half = client.fine_tuning.jobs.retrieve(job.id)
    assert (half.status, half.fine_tuned_model) == ("cancelled", None)
    whole = simulator.jobs.jobs[job.id].data.tokens * 3
    assert half.trained_tokens == whole // 2
    assert refused(lambda: client.fine_tuning.jobs.cancel(job.id)).status_code == 400


def test_a_paused_job_stands_still_until_it_is_resumed(simulator, client):
    job = tune(client)
    simulator.advance(60 + 120 + 10)
    assert client.fine_tuning.jobs.pause(job.id).status == "pausing"
    simulator.advance(HOUR)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "running"
    simulator.advance(25)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    simulator.advance(1)
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


def test_a_state_that_nobody_documented(simulator, client):
    job = tune(client)
    simulator.set(unlisted_status="reviewing")
    assert client.fine_tuning.jobs.retrieve(job.id).status == "reviewing"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (rows(9), "invalid_n_examples"),
        (rows(12) + b"{}\n", "invalid_training_file"),
        (b"no json\n", "invalid_training_file"),
    ],
)
def test_data_that_cannot_be_used_fails_the_job_not_the_upload(simulator, client, content, code):
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=upload(client, content))
    simulator.advance(60)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.error.code, job.error.param) == ("failed", code, "training_file")
    assert simulator.cost() == 0


def test_a_training_that_breaks_off(simulator, client):
    simulator.set(fail_next_job=Failure(code="server_error", message="Internal error.", after_seconds=5))
    job = tune(client)
    simulator.advance(HOUR)
    job = client.fine_tuning.jobs.retrieve(job.id)
    assert (job.status, job.error.code) == ("failed", "server_error")


REFUSALS = {
    "a wrong key": ({"keys": {"sk-other"}}, 401, "invalid_api_key"),
    "a revoked key": ({"revoked_keys": {"sk-simulated"}}, 401, "invalid_api_key"),
    "another organization": ({"organization": "org-other"}, 401, "mismatched_organization"),
    "another project": ({"project": "proj-other"}, 401, "mismatched_project"),
    "closed to the organization": ({"fine_tuning_closed": True}, 403, "fine_tuning_closed"),
    "too many jobs": ({"job_limit": 0}, 429, "rate_limit_exceeded"),
    "too many jobs today": ({"daily_job_limit": 0}, 429, "daily_rate_limit_exceeded"),
    "no money": ({"credit": Decimal(0)}, 429, "insufficient_quota"),
}


@pytest.mark.parametrize(("settings", "status", "code"), REFUSALS.values(), ids=REFUSALS)
def test_a_job_is_refused(simulator, client, settings, status, code):
    file = upload(client)
    simulator.set(**settings)
    error = refused(lambda: client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file))
    assert (error.status_code, error.code) == (status, code)
    assert simulator.count("fine_tuning.jobs.create") == 0


BAD_REQUESTS = {
    "no such file": ({"training_file": "file-none"}, "training_file", None),
    "no such model": ({"model": "gpt-3"}, None, "model_not_available"),
    "unknown field": ({"extra_body": {"colour": "red"}}, "colour", "unknown_parameter"),
    "unknown nested field": ({"method": {"type": "supervised", "supervised": {"rank": 8}}}, "method.supervised.rank",
                             "unknown_parameter"),
    "wrong type": ({"seed": "one"}, "seed", "invalid_type"),
    "long suffix": ({"suffix": "x" * 65}, "suffix", "string_above_max_length"),
    "metadata": ({"metadata": {str(n): "" for n in range(17)}}, "metadata", None),
}  # fmt: skip


@pytest.mark.parametrize(("change", "param", "code"), BAD_REQUESTS.values(), ids=BAD_REQUESTS)
def test_a_request_that_the_sdk_would_not_make_is_refused(client, change, param, code):
    request = {"model": "gpt-4o-mini", "training_file": upload(client)} | change
    error = refused(lambda: client.fine_tuning.jobs.create(**request))
    assert (error.status_code, error.param, error.code) == (400, param, code)


def test_a_file_is_not_ready_at_once(simulator, client):
    simulator.set(file_processing_seconds=20)
    file = upload(client)
    assert client.files.retrieve(file).status == "uploaded"
    error = refused(lambda: client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file))
    assert "not ready" in error.message
    simulator.advance(20)
    assert client.files.retrieve(file).status == "processed"
    client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file)


def test_a_file_is_read_back_as_it_was_sent(client):
    content = rows(5000)
    file = upload(client, content)
    assert client.files.content(file).read() == content
    assert client.files.retrieve(file).bytes == len(content)


def test_a_file_expires(simulator, client):
    file = client.files.create(file=("a.jsonl", rows(1)), purpose="fine-tune",
                               expires_after={"anchor": "created_at", "seconds": 3600})  # fmt: skip
    assert file.expires_at == file.created_at + 3600
    simulator.advance(3600)
    assert refused(lambda: client.files.retrieve(file.id)).status_code == 404


@pytest.mark.parametrize(("name", "content"), [("train.csv", b"a"), ("train.jsonl", b"")])
def test_a_file_is_refused_and_not_kept(simulator, client, name, content):
    assert refused(lambda: upload(client, content, name)).status_code == 400
    assert simulator.left() == []


def test_fine_tuning_ends_for_all_and_models_shut_down(simulator, client):
    job = tune(client)
    simulator.advance(HOUR)
    tuned = client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model
    assert client.models.retrieve(tuned).shutdown_date == "2027-01-14"
    simulator.advance(66 * DAY)
    assert refused(lambda: tune(client)).code == "fine_tuning_closed"
    client.chat.completions.create(model=tuned, messages=[{"role": "user", "content": "question 1"}])
    simulator.advance(8 * DAY)
    ask = {"model": tuned, "messages": [{"role": "user", "content": "question 1"}]}
    assert "deprecated" in refused(lambda: client.chat.completions.create(**ask)).message


def test_an_error_after_the_job_was_made_leaves_the_job(simulator, client):
    file = upload(client)
    simulator.fault("fine_tuning.jobs.create", after_commit=True)
    error = refused(lambda: client.fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file))
    assert error.status_code == 500
    assert len(list(client.fine_tuning.jobs.list())) == simulator.count("fine_tuning.jobs.create") == 1


def test_the_sdk_itself_makes_a_job_twice_when_it_may_retry(simulator, client):
    file = upload(client)
    simulator.fault("fine_tuning.jobs.create", after_commit=True, headers={"retry-after-ms": "1"})
    client.with_options(max_retries=1).fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file)
    assert simulator.count("fine_tuning.jobs.create") == 2


@pytest.mark.parametrize(("outcome", "error"), [("hang", openai.APITimeoutError), ("cut", openai.APIConnectionError)])
@pytest.mark.parametrize("after_commit", [False, True])
def test_no_answer(simulator, client, outcome, error, after_commit):
    file = upload(client)
    simulator.fault("fine_tuning.jobs.create", outcome=outcome, after_commit=after_commit)
    with pytest.raises(error):
        client.with_options(timeout=2).fine_tuning.jobs.create(model="gpt-4o-mini", training_file=file)
    assert simulator.count("fine_tuning.jobs.create") == int(after_commit)


def test_a_rate_limit_says_when_to_come_back(simulator, client):
    simulator.fault("files.*", status=429, code="rate_limit_exceeded", headers={"Retry-After": "7"}, skip=1, times=2)
    client.files.list()
    error = refused(client.files.list)
    assert (error.status_code, error.response.headers["Retry-After"]) == (429, "7")
    refused(client.files.list)
    client.files.list()


def test_time_runs_when_it_is_told_to(simulator, client):
    job = tune(client)
    simulator.clock.run(rate=HOUR * 1000)
    for _ in range(1000):
        if client.fine_tuning.jobs.retrieve(job.id).status == "succeeded":
            break
    assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"


def test_a_test_in_another_process_sets_clock_faults_and_settings(simulator, client):
    control = str(client.base_url).removesuffix("/v1/") + "/_simulator"
    tune(client)
    with httpx2.Client() as other:
        other.post(f"{control}/clock", json={"advance": HOUR}).raise_for_status()
        other.post(f"{control}/faults", json={"operation": "models.list", "status": 503}).raise_for_status()
        other.post(f"{control}/settings", json={"job_limit": 0}).raise_for_status()
        assert other.post(f"{control}/settings", json={"job_limit": "many"}).status_code == 400
        assert other.post(f"{control}/faults", json={"colour": "red"}).status_code == 400
        state = other.get(f"{control}/state").json()
    assert Decimal(state["total"]) == simulator.cost() > 0
    assert {resource["kind"] for resource in state["left"]} == {"file", "model"}
    assert state["calls"][-1]["operation"] == "fine_tuning.jobs.create"
    assert refused(client.models.list).status_code == 503
    assert refused(lambda: tune(client)).code == "rate_limit_exceeded"
