"""Planned faults: which call fails, when, and how."""

from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Fault(BaseModel):
    """One planned fault. It affects calls whose operation matches, after the first `skip` of them, `times` times.

    `outcome` is what the client sees: an answer with `status` and `code` in the provider's own format, no answer at all
    (`hang`, until the client's timeout), a closed connection (`cut`), the `page` of a proxy, or with status 200 an
    `empty` object or the first half of the answer (`torn`, of a call that was carried out). With `after_commit` the
    call is carried out before. `delay` only slows it down. A streamed request is aborted `midway`, after a part of it
    was read.
    """

    model_config = ConfigDict(extra="forbid")

    operation: str = Field(description="name of the operation, or a pattern such as fine_tuning.jobs.*")
    outcome: Literal["answer", "hang", "cut", "page", "empty", "torn", "delay"] = "answer"
    after_commit: bool = False
    midway: bool = False
    status: int = 500
    page_status: int = Field(default=200, description="of a page")
    code: str | None = None
    message: str = "The server had an error while processing your request."
    headers: dict[str, str] = {}
    delay_seconds: float = Field(default=0.0, description="real seconds before anything happens")
    times: int = 1
    skip: int = 0


class FaultPlan:
    """The pending faults, in the order in which they were planned."""

    def __init__(self) -> None:
        self._planned: list[Fault] = []

    def plan(self, fault: Fault) -> None:
        """Add a fault."""
        self._planned.append(fault.model_copy())

    def clear(self) -> None:
        """Remove all pending faults."""
        self._planned.clear()

    def pending(self) -> list[Fault]:
        """The pending faults."""
        return [fault.model_copy() for fault in self._planned]

    def take(self, operation: str) -> Fault | None:
        """The fault of this call, if any."""
        for fault in self._planned:
            if not fnmatchcase(operation, fault.operation):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self._planned.remove(fault)
            return fault
        return None
