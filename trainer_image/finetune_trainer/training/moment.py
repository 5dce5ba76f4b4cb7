"""The time that chat templates write: one for all conversations of a run, whenever its attempts happen.

Llama 3's template, for example, writes today's date into the system message (`strftime_now`). With the clock, an
attempt that resumes on the next day, or a rank past midnight, would train on other tokens than the attempts before,
and the evaluation would use other prompts. So the start of the first attempt is saved beside the checkpoints.
"""

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from finetune_trainer.computing.ranks import World
from finetune_trainer.storage.durable import json_in, whole_file

FILE = "moment.json"
"""In the job's output folder."""


def of_run(output: Path, world: World) -> datetime:
    """When the run's first attempt began, in local time as templates expect; the same on every rank.

    Raises:
        TrainerError: ArtifactFailed or StoreUnavailable, it cannot be read or saved.
    """
    return datetime.fromisoformat(world.broadcast("moment", lambda: _saved(output / FILE).isoformat()))


def forget(output: Path) -> None:
    """Delete the saved time at the end of the run: the next run here gets its own."""
    with suppress(OSError):
        (output / FILE).unlink()


def _saved(path: Path) -> datetime:
    try:
        return datetime.fromisoformat(json_in(path)).replace(tzinfo=None)
    except (ValueError, TypeError):  # missing, or not a time
        now = datetime.now()  # noqa: DTZ005 - local time, as at inference
        whole_file(path, json.dumps(now.isoformat()).encode())
        return now
