"""What checkpoints belong to: a run resumes only from those of the same job, data and base model."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.errors import ANOTHER_OUTPUT, TrainerError
from finetune_trainer.models.base_probe import Probe, differs


@dataclass(frozen=True)
class Origin:
    """What a model is trained from, as its checkpoints record it."""

    fingerprint: str
    """Hash of the job's spec and the data."""
    base: Probe = field(default_factory=dict)
    """Probe of the base model, if an adapter on it is trained."""

    def notes(self) -> dict[str, Any]:
        """The fields to save in a checkpoint."""
        return {"fingerprint": self.fingerprint, "base": self.base}

    def require_same(self, folder: Path, notes: dict[str, Any]) -> None:
        """Refuse the checkpoint in `folder` if its `notes` have another origin.

        Raises:
            TrainerError: SpecInvalid.
        """
        if notes["fingerprint"] != self.fingerprint:
            raise TrainerError(
                Reason.SPEC_INVALID,
                f"{folder.parent} holds checkpoints of a job with another spec or other data: for the same "
                "job, a file of spec.dataset has changed since they were made",
                ANOTHER_OUTPUT,
            )
        if name := differs(notes.get("base", {}), self.base):
            raise of_another_base(folder, name)


def of_another_base(folder: Path, name: str = "") -> TrainerError:
    """The error for a checkpoint of another base model than the present one; `name` is a tensor that differs."""
    seen = f": its {name} differs" if name else ""
    message = f"{folder} is a checkpoint of another base model of the same name{seen}"
    return TrainerError(Reason.SPEC_INVALID, message, ANOTHER_OUTPUT)
