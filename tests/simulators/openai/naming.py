"""Identifiers and names as OpenAI makes them; Azure has its own."""

from tests.simulators.ids import Ids


class Naming:
    """Makes identifiers, and the names of tuned models."""

    def __init__(self, ids: Ids, organization_name: str) -> None:
        self._ids, self._organization_name = ids, organization_name

    def file(self) -> str:
        """A new file's identifier."""
        return self._ids.new("file-")

    def job(self) -> str:
        """A new job's identifier."""
        return self._ids.new("ftjob-")

    def event(self) -> str:
        """A new event's identifier."""
        return self._ids.new("ftevent-")

    def checkpoint(self) -> str:
        """A new checkpoint's identifier."""
        return self._ids.new("ftckpt_")

    def tuned(self, base: str, suffix: str, job_id: str) -> str:
        """The name of the model that a job makes."""
        return f"ft:{base}:{self._organization_name}:{suffix}:{job_id[-8:]}"

    def at_step(self, tuned: str, step: int, *, last: bool) -> str:
        """The name of a checkpoint's model."""
        del last
        return f"{tuned}:ckpt-step-{step}"
