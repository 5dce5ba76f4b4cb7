"""The inputs of `check`: files, folders and standard input, read together.

A job's connection may be in any of them. The one in the job's own file counts, else the last, as with kubectl apply.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from finetune_api.connection import LLMConnectionSpec
from finetune_api.job import FineTuneJobManifest
from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError
from finetune_trainer.job.manifest import Other, Warnings, read_all

_ENDINGS = (".json", ".yaml", ".yml")
"""Extensions of the files that kubectl reads in a folder."""


@dataclass(frozen=True)
class GivenFile:
    """The contents of a file, or why it cannot be used."""

    path: Path
    others: list[Other] = field(default_factory=list)
    jobs: list[FineTuneJobManifest] = field(default_factory=list)
    wrong: TrainerError | None = None
    doubts: Warnings = field(default_factory=dict)


@dataclass(frozen=True)
class GivenConnection:
    """The connection that a job names."""

    spec: LLMConnectionSpec
    doubt: str | None = None
    """A warning if another one may be meant."""


def read_given(paths: Iterable[Path]) -> list[GivenFile]:
    """All files in order, those of a folder by name. An invalid file only has an error, so that others are read too."""
    return [found for path in paths for found in (_folder(path) if path.is_dir() else [_file(path)])]


def connection_of(job: FineTuneJobManifest, file: GivenFile, given: Iterable[GivenFile]) -> GivenConnection | None:
    """The connection that a job in the file names, if one of the given files contains it."""
    name = job.spec.connection_ref.name
    named = [(one.path, other.spec) for one in given for other in one.others if other.name == name]
    found = [(path, spec) for path, spec in named if isinstance(spec, LLMConnectionSpec)]
    if not found:
        return None
    place, spec = next((one for one in found if one[0] == file.path), found[-1])
    if place == file.path or all(other == spec for _, other in found):
        return GivenConnection(spec)
    places = " and ".join(dict.fromkeys(_full_path(path) for path, _ in found))
    return GivenConnection(
        spec, f"LLMConnection {name} is in {places}, which differ: that of {_full_path(place)} was taken"
    )


def not_given(job: FineTuneJobManifest, given: Iterable[GivenFile]) -> str | None:
    """A warning if connections were given, but not the one that the job names: the job was not checked against it."""
    there = sorted({one.name for file in given for one in file.others if one.kind == "LLMConnection"})
    if not there:
        return None
    name = job.spec.connection_ref.name
    return (
        f"spec.connectionRef.name: LLMConnection {name} is in none of the files (there: {', '.join(there)}), so the "
        "job was not held against what its connection allows, nor against a provider's rules"
    )


def _full_path(path: Path) -> str:
    """A whole path for messages: two folders may contain files of the same name."""
    return os.fsencode(path).decode("utf-8", errors="replace")


def _file(path: Path, *, may_be_empty: bool = False) -> GivenFile:
    try:
        others, jobs, doubts = read_all(path, may_be_empty=may_be_empty)
    except TrainerError as error:
        return GivenFile(path, wrong=error)
    return GivenFile(path, others, jobs, doubts=doubts)


def _folder(folder: Path) -> list[GivenFile]:
    """The files that kubectl would read: no subfolders. Objects of others are ignored."""
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in _ENDINGS and path.is_file())
    except OSError as error:
        message = f"{_full_path(folder)} cannot be read: {error.strerror}"
        return [GivenFile(folder, wrong=TrainerError(Reason.SPEC_INVALID, message, "Name the manifest with -f FILE."))]
    found = [_file(path, may_be_empty=True) for path in files]
    if any(one.others or one.jobs or one.wrong for one in found):
        return found
    endings = ", ".join(_ENDINGS)
    message = f"{_full_path(folder)} has no FineTuneJob, nor another object of ours, in files that end with {endings}"
    step = "Name the folder that the files are in: those below it are not read."
    return [GivenFile(folder, wrong=TrainerError(Reason.SPEC_INVALID, message, step))]
