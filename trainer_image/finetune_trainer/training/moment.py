"""The time that chat templates write: one moment for all conversations of a run, whatever day its attempts see.

Llama 3's template, for example, writes today's date into the system message (`strftime_now`). By the clock an attempt
that goes on the next day, or a rank on the other side of midnight, would learn from other tokens than those before it,
and the evaluation would ask with others. So the first attempt's beginning is noted beside the checkpoints.
"""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from finetune_trainer.computing.ranks import World
from finetune_trainer.storage.durable import note_in, whole_file

FILE = "moment.json"
"""Below the job's output."""


def of_run(output: Path, world: World) -> datetime:
    """When the run's first attempt began, in local time as templates have it; the same on every rank.

    Raises:
        TrainerError: ArtifactFailed or StoreUnavailable, it cannot be read or noted.
    """
    return datetime.fromisoformat(world.tell("moment", lambda: _noted(output / FILE).isoformat()))


def forget(output: Path) -> None:
    """The run is over: whatever is learnt here next has a time of its own."""
    with suppress(OSError):
        (output / FILE).unlink()


def _noted(path: Path) -> datetime:
    try:
        return datetime.fromisoformat(note_in(path)).replace(tzinfo=None)
    except (ValueError, TypeError):  # what is no moment is nobody's note
        now = datetime.now()  # noqa: DTZ005 - local time, as at inference
        whole_file(path, json.dumps(now.isoformat()).encode())
        return now
