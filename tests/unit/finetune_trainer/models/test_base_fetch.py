"""Base models from a hub that is away, breaks off, says no, or sends more than there is room for."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.models import base_fetch
from finetune_trainer.storage import patience
from tests.unit.finetune_trainer.fake_service import serving
from tests.unit.finetune_trainer.models.model_hub import NAME, ModelHub
from tests.unit.finetune_trainer.still_clock import StillClock


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: StillClock) -> Iterator[ModelHub]:  # noqa: ARG001 - no pauses
    with serving(ModelHub()) as hub:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
        yield hub


Fault = Callable[[str, str], Any]


def first(times: int, fault: Any, place: str) -> Fault:
    """So often it meets what is asked of that place, and then no more."""
    left = [fault] * times

    def faulty(_method: str, path: str) -> Any:
        return left.pop() if place in path and left else None

    return faulty


def refused(**more: Any) -> TrainerError:
    with pytest.raises(TrainerError) as caught:
        base_fetch.fetch(NAME, **more)
    return caught.value


def is_whole(folder: Path, hub: ModelHub) -> bool:
    return all((folder / name).read_bytes() == content for name, content in hub.files.items())


@pytest.mark.parametrize(
    ("times", "fault", "place"),
    [(3, 503, "/api/models"), (3, "break", "/api/models"), (2, 429, "/api/models"), (14, "cut", "model.safetensors")],
    ids=["unwell", "broken", "busy", "cut in the middle of a file"],
)
def test_a_hub_that_is_away_for_a_while_is_asked_again(hub: ModelHub, times: int, fault: Any, place: str) -> None:
    hub.fault = first(times, fault, place)
    assert is_whole(base_fetch.fetch(NAME), hub)


def test_files_that_have_come_whole_are_not_fetched_again(hub: ModelHub) -> None:
    hub.fault = first(20, "cut", "model.safetensors")
    assert is_whole(base_fetch.fetch(NAME), hub)
    assert hub.fetched("tokenizer.json").count("GET") == 1


def test_a_hub_that_stays_away_is_given_up_after_a_minute(hub: ModelHub, clock: StillClock) -> None:
    hub.fault = lambda _method, path: 503 if "/api/models" in path else None
    error = refused()
    assert error.reason is Reason.STORE_UNAVAILABLE
    assert error.message == f"{NAME} could not be fetched: the hub did not answer (status 503)"
    assert 0.5 * patience.PATIENCE_SECONDS < clock.now <= patience.PATIENCE_SECONDS


def test_a_folder_that_an_earlier_try_has_begun_is_not_taken_for_the_model(hub: ModelHub, tmp_path: Path) -> None:
    """The hub's client takes what is there for all of it, where the hub does not answer any more."""
    into = tmp_path / "into"
    into.mkdir()

    def goes_away(_method: str, path: str) -> Any:
        if path.endswith("model.safetensors"):
            hub.fault = lambda _method, _path: 503
            return 503
        return None

    hub.fault = goes_away
    error = refused(into=into)
    assert error.reason is Reason.STORE_UNAVAILABLE
    assert not (into / "model.safetensors").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_hub_that_says_no_is_not_said_to_be_away(hub: ModelHub, clock: StillClock, status: int) -> None:
    hub.fault = lambda _method, path: status if "/api/models" in path else None
    error = refused()
    assert error.reason is Reason.ACCESS_DENIED
    assert f"(status {status})" in error.message
    assert "spec.hubTokenSecretRef" in (error.next_step or "")
    assert clock.now == 0


RUST = "Task error: File reconstruction error: CAS Client Error: "


@pytest.mark.parametrize(
    ("error", "reason", "said", "step"),
    [
        (OSError(28, "No space left on device"), Reason.ARTIFACT_FAILED, "No space left", "ephemeralStorage"),
        (OSError(30, "Read-only file system"), Reason.ARTIFACT_FAILED, "Read-only", "model cache"),
        (RuntimeError(f"{RUST}No space left on device (os error 28)"), Reason.ARTIFACT_FAILED, "No space", "own disk"),
        (
            RuntimeError(f"{RUST}error sending request for url (http://127.0.0.1:9/v2/reconstructions/aa)"),
            Reason.STORE_UNAVAILABLE,
            "storage of large files",
            "*.xethub.hf.co",
        ),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_a_download_meets_is_told_with_what_helps(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: Reason, said: str, step: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fails)
    found = refused()
    assert (found.reason, said in found.message, step in (found.next_step or "")) == (reason, True, True)


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("huggingface.co/HuggingFaceTB/SmolLM2-135M", "Write HuggingFaceTB/SmolLM2-135M, without the hub's host."),
        ("a/b/c", "Write ORG/NAME with letters, digits, '.', '_' and '-'."),
        ("org/-model", "Write ORG/NAME with letters, digits, '.', '_' and '-'."),
    ],
)
def test_a_name_that_no_hub_knows_is_told_as_that_and_no_bug(name: str, step: str) -> None:
    assert base_fetch.in_hub_cache(name) is None
    with pytest.raises(TrainerError) as error:
        base_fetch.fetch(name)
    assert (error.value.reason, error.value.next_step) == (Reason.SPEC_INVALID, step)
    assert error.value.message == f"spec.baseModel: {name!r} is not a name of a model"
