"""State for resuming, kept in an object store during the training: checkpoints, record and answers so far.

    …/JOB-UID/attempts/000002                 attempt 2 has started (fence.py)
              state/000002/objects/SHA256     files, by content: unchanged ones are uploaded once
              state/000002/000017.json        the list of files, written last, so that snapshots are atomic

An attempt writes and deletes in its own folder and in those of earlier ones, never in a newer one's.
"""

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_api.names import CHECKPOINTS_FOLDER
from finetune_trainer.attempt.metrics import FILE as RECORD
from finetune_trainer.attempt.mlflow_run import RUNS_FOLDER
from finetune_trainer.attempt.trackers import TENSORBOARD_FOLDER
from finetune_trainer.evaluation.kept import FOLDER as ANSWERS
from finetune_trainer.storage.durable import UNFINISHED, is_within, read_manifest, sha256_of, write_errors
from finetune_trainer.storage.store import Store
from finetune_trainer.training.checkpoint_names import newest_step
from finetune_trainer.training.code_before import FILE as CODE_BEFORE
from finetune_trainer.training.moment import FILE as MOMENT

NEWS = (CHECKPOINTS_FOLDER, ANSWERS, RUNS_FOLDER)
"""Parts of a job's output folder whose changes trigger a new snapshot."""

KEPT = (*NEWS, TENSORBOARD_FOLDER, MOMENT, CODE_BEFORE, RECORD)
"""Parts that the next attempt resumes from. Records are last: they may be ahead of the checkpoints, not behind."""

_STATE = "state"
_DIGITS = 6
_OBJECT = re.compile(rf"{_STATE}/[0-9]+/([0-9]+\.json|objects/[0-9a-f]+)")
_TRIES = 5

_Listing = list[tuple[str, int, int]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Found:
    attempt: int
    number: int
    name: str


class Snapshots:
    """The snapshots of one job, as read and written by one attempt."""

    def __init__(self, store: Store, output: Path, attempt: int) -> None:
        self._store, self._output, self._attempt = store, output, attempt
        self._number = 0
        self._there: set[str] = set()
        self._taken: _Listing = []
        self.saved_step: int | None = None
        """Step of the newest checkpoint in the store."""

    def restore(self) -> None:
        """Restore the newest snapshot. Files that are damaged in the store are skipped.

        Raises:
            TrainerError: as `Store` raises it.
        """
        for _ in range(_TRIES):
            found = self._all()
            self._number = max((one.number for one in found if one.attempt == self._attempt), default=0)
            if not found or self._restore(max(found, key=lambda one: (one.attempt, one.number))):
                break  # otherwise an old attempt that still runs has just replaced it
        self._taken, self.saved_step = self._listing(), newest_step(self._output / CHECKPOINTS_FOLDER)

    def changed(self) -> bool:
        """Whether there is anything new to keep. A changed record alone does not count: it needs a checkpoint."""
        return self._listing() != self._taken

    def take(self) -> None:
        """Upload the current state and delete older snapshots.

        Raises:
            TrainerError: as `Store` raises it; ArtifactFailed, the scratch space is full.
        """
        listing = self._listing()
        with write_errors(self._output), tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=self._output) as place:
            captured = Path(place)
            self._capture(captured)
            files = {path.relative_to(captured).as_posix(): path for path in _files_in(captured)}
            step = newest_step(captured / CHECKPOINTS_FOLDER)
            sums = dict(_sums(captured, files))
            for name, digest in sums.items():
                if digest not in self._there:
                    self._store.put(files[name], f"{self._own}/objects/{digest}")
                    self._there.add(digest)
        self._number += 1
        newest = f"{self._own}/{self._number:0{_DIGITS}}.json"
        self._store.put_bytes(json.dumps({"files": sums}).encode(), newest)
        self._taken, self.saved_step = listing, step
        self._forget_but(newest, set(sums.values()))

    def forget(self) -> None:
        """Delete everything that this attempt and earlier ones kept."""
        self._store.remove(name for name in self._kept() if _attempt_of(name) <= self._attempt)

    @property
    def _own(self) -> str:
        return f"{_STATE}/{self._attempt:0{_DIGITS}}"

    def _kept(self) -> list[str]:
        """Names of all objects of snapshots; other objects beside them are left alone."""
        return [name for name in self._store.objects(_STATE) if _OBJECT.fullmatch(name)]

    def _all(self) -> list[_Found]:
        found = (name for name in self._kept() if name.endswith(".json"))
        return [_Found(_attempt_of(name), int(Path(name).stem), name) for name in found]

    def _restore(self, found: _Found) -> bool:
        """Restore a snapshot; returns whether all its objects existed."""
        text = self._store.get_bytes(found.name)
        if text is None:
            return False
        files = {name: digest for name, digest in json.loads(text)["files"].items() if is_within(name)}
        for part in KEPT:
            shutil.rmtree(self._output / part, ignore_errors=True)
        with write_errors(self._output):
            missing = [name for name, digest in files.items() if not self._restore_file(found, name, digest)]
        return not missing

    def _restore_file(self, found: _Found, name: str, digest: str) -> bool:
        path = self._output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        there = self._store.get(f"{found.name.rpartition('/')[0]}/objects/{digest}", path)
        if there and sha256_of(path) != digest:
            logger.warning("%s is damaged in the store and is left out.", name)
            path.unlink()
        return there

    def _listing(self) -> _Listing:
        """Names, sizes and times of everything kept except the record."""
        listing: _Listing = []
        for part in NEWS:
            for path in _files_in(self._output / part):
                try:
                    stat = path.stat()
                except FileNotFoundError:
                    continue  # a checkpoint that was just replaced by a newer one
                listing.append((str(path), stat.st_size, stat.st_mtime_ns))
        return sorted(listing)

    def _capture(self, place: Path) -> None:
        """Capture the current state: folders with a manifest never change and are hard-linked, the rest is copied."""
        for part in KEPT:
            source = self._output / part
            for path in [source] if source.is_file() else sorted(source.glob("*")):
                target = place / path.relative_to(self._output)
                target.parent.mkdir(parents=True, exist_ok=True)
                if not path.name.startswith(UNFINISHED) and not _copy(path, target):
                    shutil.rmtree(target, ignore_errors=True)  # discard an incomplete checkpoint

    def _forget_but(self, newest: str, used: set[str]) -> None:
        def is_old(name: str) -> bool:
            own = name.startswith(f"{self._own}/") and name != newest and name.rpartition("/")[2] not in used
            return own or _attempt_of(name) < self._attempt

        self._there &= used
        self._store.remove(filter(is_old, self._kept()))


def _attempt_of(name: str) -> int:
    return int(name.split("/")[1])


def _files_in(folder: Path) -> Iterator[Path]:
    """All files below. Skips files that are renamed or deleted meanwhile, for which Path.rglob would raise."""
    return (Path(parent, name) for parent, _, names in os.walk(folder) for name in names)


def _copy(source: Path, target: Path) -> bool:
    """Copy a file or folder; returns whether it existed until the end."""
    link = source.is_dir() and read_manifest(source, verify=False) is not None
    try:
        if source.is_file():
            shutil.copyfile(source, target)
        else:
            shutil.copytree(source, target, copy_function=os.link if link else shutil.copyfile)
    except (FileNotFoundError, shutil.Error):
        return False
    return True


def _sums(place: Path, files: dict[str, Path]) -> Iterator[tuple[str, str]]:
    """SHA-256 of each file: from the manifest beside it if there is one, otherwise computed."""
    known: dict[Path, dict[str, Any]] = {}
    for name, path in files.items():
        folder = path.parent
        if folder != place and folder not in known:
            known[folder] = (read_manifest(folder, verify=False) or {}).get("files", {})
        entry = known.get(folder, {}).get(path.name)
        yield name, entry["sha256"] if entry else sha256_of(path)
