"""Checkpoints are whole or absent, and hold all that a run needs to go on."""

import json
import random

import pytest
import torch

from finetune_trainer.attempt.metrics import FILE, Metrics
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage import durable
from finetune_trainer.training import checkpoint


class Parts:
    """A small model with its optimizer and schedule, some steps old."""

    def __init__(self, steps=3):
        torch.manual_seed(1)
        self.model = torch.nn.Linear(4, 2)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 / (step + 1))
        for _ in range(steps):
            self.step()

    def step(self):
        self.model(torch.rand(8, 4)).square().sum().backward()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()

    def save(self, root, step):
        return checkpoint.save(
            root,
            step,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            trainer_state={"global_step": step},
            notes={"fingerprint": "f", "seconds": 1.5},
            record=Metrics(root / FILE),
        )


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path):
    parts = Parts()
    folder = parts.save(tmp_path, 3)
    parts.step()
    parts.step()
    expected = [value.clone() for value in parts.model.parameters()], random.random()

    other = Parts(steps=1)
    random.seed(99)
    checkpoint.load_model(folder, other.model)
    checkpoint.load_optimizer(folder, other.optimizer, other.scheduler)
    checkpoint.load_random_states(folder)
    other.step()
    other.step()
    assert all(torch.equal(*pair) for pair in zip(expected[0], other.model.parameters(), strict=True))
    assert random.random() == expected[1]


def test_a_large_checkpoint_is_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_PIECE_BYTES", 8)
    parts, other = Parts(), Parts(steps=1)
    folder = parts.save(tmp_path, 3)
    assert len(list(folder.glob("model*.safetensors"))) == len(list(other.model.parameters()))
    assert len(list(folder.glob("optimizer*.safetensors"))) > 2
    checkpoint.load_model(folder, other.model)
    checkpoint.load_optimizer(folder, other.optimizer, other.scheduler)
    assert all(torch.equal(*pair) for pair in zip(parts.model.parameters(), other.model.parameters(), strict=True))
    for one, two in zip(parts.optimizer.state.values(), other.optimizer.state.values(), strict=True):
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_goes_on_where_there_are_fewer_gpus():
    states = checkpoint.RandomStates.now()
    absent = {f"cuda{torch.cuda.device_count()}": torch.get_rng_state()}
    checkpoint.RandomStates(states.generators | absent, states.python).restore()


def test_the_two_newest_are_kept_and_the_newest_is_found_with_its_notes(tmp_path):
    parts = Parts()
    for step in (5, 10, 100):
        parts.save(tmp_path, step)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000010", "step-00000100"]
    folder, step, notes = checkpoint.newest(tmp_path)
    assert (folder.name, step, notes) == ("step-00000100", 100, {"fingerprint": "f", "seconds": 1.5})


def damage_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def lose_a_file(folder):
    (folder / "random.safetensors").unlink()


@pytest.mark.parametrize("damage", [damage_weights, cut_weights, lose_manifest, lose_a_file])
def test_trap_11_a_damaged_checkpoint_is_passed_over_and_deleted(tmp_path, damage):
    parts = Parts()
    parts.save(tmp_path, 1)
    damage(parts.save(tmp_path, 2))
    assert checkpoint.newest(tmp_path)[1] == 1
    assert not (tmp_path / "step-00000002").exists()


def test_a_checkpoint_that_cannot_be_read_at_the_moment_is_not_deleted(tmp_path, monkeypatch):
    parts, unread = Parts(), {"step-00000002"}
    for step in (1, 2):
        parts.save(tmp_path, step)
    original = durable.sha256_of

    def stale(path):
        if path.parent.name in unread:
            raise OSError(116, "Stale file handle")
        return original(path)

    monkeypatch.setattr(durable, "sha256_of", stale)
    assert checkpoint.newest(tmp_path)[1] == 1
    unread.add("step-00000001")
    with pytest.raises(TrainerError, match="has checkpoints that cannot be read: Stale file handle"):
        checkpoint.newest(tmp_path)
    unread.clear()
    assert checkpoint.newest(tmp_path)[1] == 2


def test_trap_11_what_a_killed_writer_left_is_deleted(tmp_path):
    Parts().save(tmp_path, 1)
    left = tmp_path / ".unfinished-step-00000002-abcd"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    assert checkpoint.newest(tmp_path)[1] == 1
    assert not left.exists()


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.newest(tmp_path / "absent") is None


def test_a_checkpoint_holds_no_pickle(tmp_path):
    folder = Parts().save(tmp_path, 1)
    kinds = {path.suffix for path in folder.iterdir()}
    assert kinds == {".safetensors", ".json", ".jsonl"}
    for path in folder.glob("*.json"):
        json.loads(path.read_text())


def test_a_checkpoint_that_cannot_be_written_leaves_nothing_and_says_why(tmp_path, monkeypatch):
    def full_disk(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(TrainerError, match="No space left on device") as caught:
        Parts().save(tmp_path, 1)
    assert caught.value.reason == "ArtifactFailed"
    assert list(tmp_path.iterdir()) == []
