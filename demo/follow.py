"""Shows a FineTuneJob and a ModelDeployment while they happen: phases, progress and both losses."""

from __future__ import annotations

from typing import Any

from demo.console import Console, DemoError
from demo.kubectl import Kubectl, Manifest

BAR_CELLS = 10
PLAIN_STEP_PERCENT = 10
"""Without a terminal, progress is a new line each time it has grown by this much."""

QUIET_SECONDS = 900
"""After this long without any change something is wrong that no status says."""


def follow_job(kubectl: Kubectl, console: Console, namespace: str, name: str) -> Manifest:
    """Show a job until it ends; return it as it succeeded.

    Raises:
        DemoError: it failed, with what its status says and what to do.
    """
    view = _JobView(console)
    quiet = 0
    for job in kubectl.follow("finetunejobs", name, namespace):
        quiet = quiet + 1 if job is None else 0
        if quiet > QUIET_SECONDS:
            raise DemoError(
                f"job {name} has not changed for {QUIET_SECONDS // 60} minutes",
                f"Look at it: kubectl -n {namespace} describe finetunejob {name}",
            )
        view.show(job)
        if job is not None and (ended := _ended(job)):
            if ended == "Succeeded":
                return job
            raise _failure(job)
    raise AssertionError("a watch goes on forever")


def follow_deployment(kubectl: Kubectl, console: Console, namespace: str, name: str, version: int) -> Manifest:
    """Show a deployment until it serves `version`; return it.

    Raises:
        DemoError: it cannot be served.
    """
    shown = ""
    for seconds, found in enumerate(kubectl.follow("modeldeployments", name, namespace)):
        if found is None:
            if seconds > QUIET_SECONDS:
                break
            continue
        status = found.get("status", {})
        text = f"{status.get('phase', 'Pending')}: {_ready(found).get('message', '')}".rstrip(": ")
        if text != shown:
            console.step(f"deployment {name}  {text}")
            shown = text
        if status.get("phase") == "Ready" and status.get("servedVersion") == version:
            return found
        if status.get("phase") == "Failed":
            break
    raise DemoError(
        f"deployment {name} does not serve version {version}: {shown}",
        f"Look at it: kubectl -n {namespace} describe modeldeployment {name}",
    )


class _JobView:
    """What of a job has been shown, so that each thing is shown once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._message = ""
        self._percent = -PLAIN_STEP_PERCENT
        self._points = 0
        self._dataset = False
        self._live = ""

    def show(self, job: Manifest | None) -> None:
        """Show what changed; None redraws the live line, so that its clock goes on."""
        if job is not None:
            self._show_changes(job)
        if self._live:
            self._console.live(self._live)

    def _show_changes(self, job: Manifest) -> None:
        status = job.get("status", {})
        name, phase, message = job["metadata"]["name"], status.get("phase", "Pending"), _ready(job).get("message", "")
        self._show_dataset(status)
        if phase != self._phase or (phase != "Running" and message != self._message):
            self._console.step(f"job {name}  {phase}" + (f": {message}" if message and phase != "Failed" else ""))
        self._phase, self._message = phase, message
        self._live = progress_line(status) if status.get("progress") and phase in {"Running", "Evaluating"} else ""
        if self._live and not self._console.is_terminal and self._worth_a_line(status):
            self._console.step(self._live)

    def _show_dataset(self, status: dict[str, Any]) -> None:
        verdict = status.get("dataset")
        if not verdict or self._dataset:
            return
        self._dataset = True
        splits = ((name, verdict.get(name)) for name in ("train", "validation", "test"))
        for name, split in splits:
            if split:
                tokens = f", {split['tokens']:,} tokens" if split.get("tokens") else ""
                self._console.step(f"data  {name}: {split['rows']:,} rows{tokens}")
        for warning in verdict.get("warnings", []):
            self._console.step(f"data  warning: {warning}")

    def _worth_a_line(self, status: dict[str, Any]) -> bool:
        percent, points = percent_of(status["progress"]), len((status.get("loss") or {}).get("validation", []))
        if percent < self._percent:  # training is over, and answers are counted from none
            self._percent = percent
        grown = percent >= self._percent + PLAIN_STEP_PERCENT or percent == 100 > self._percent
        if not grown and points == self._points:
            return False
        self._percent, self._points = percent, points
        return True


def percent_of(progress: dict[str, Any]) -> int:
    """Of the answers to the test set, once it is asked; before, of the steps."""
    if total := progress.get("totalAnswers"):
        return int(100 * progress.get("answers", 0) / total)
    return int(progress.get("percent", 0))


def progress_line(status: dict[str, Any]) -> str:
    """Progress and both losses in one line."""
    progress, loss = status["progress"], status.get("loss") or {}
    percent = percent_of(progress)
    filled = round(BAR_CELLS * percent / 100)
    parts = [
        f"{'█' * filled}{'░' * (BAR_CELLS - filled)} {percent:3d}%",
        f"answer {progress.get('answers', 0)}/{progress['totalAnswers']}"
        if progress.get("totalAnswers")
        else f"step {progress['step']}/{progress['totalSteps']}",
    ]
    for name, label in (("train", "loss"), ("validation", "validation")):
        if loss.get(name):
            parts.append(f"{label} {loss[name][-1]['value']:.3f}")
    if progress.get("etaSeconds"):
        minutes, seconds = divmod(progress["etaSeconds"], 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    if progress.get("tokensPerSecond"):
        parts.append(f"{progress['tokensPerSecond']:.0f} tokens/s")
    return "  ".join(parts)


def _ended(job: Manifest) -> str | None:
    """Succeeded or Failed, once the job is over; machines read conditions."""
    for condition in job.get("status", {}).get("conditions", []):
        if condition["status"] == "True" and condition["type"] in {"Complete", "Failed"}:
            return "Succeeded" if condition["type"] == "Complete" else "Failed"
    return None


def _ready(found: Manifest) -> dict[str, Any]:
    conditions = found.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == "Ready"), {})


def _failure(job: Manifest) -> DemoError:
    failure = job["status"].get("failure") or {}
    text = f"{failure.get('reason', 'Failed')}: {failure.get('message', 'status names no reason')}"
    if failure.get("logTail"):
        text += "\n  the end of the trainer's log:\n    " + "\n    ".join(failure["logTail"].splitlines())
    return DemoError(f"job {job['metadata']['name']} failed: {text}", failure.get("nextStep", ""))
