"""What jobs have made and their models do not say yet: many jobs of one model become versions by one write.

    FineTuneJob ── offers its result ──▶ Offers ── all that wait ──▶ FineTunedModel ── one write of its status
         ▲                                                                │
         └───────────── looked at again: it has its version ◀─────────────┘

Only in memory: a job that has no version yet offers its result again at each look, as long as it is not Complete.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.job.view import JobView
from finetune_operator.decide.pods.refused import refusal_of_write
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, FINE_TUNED_MODELS
from finetune_operator.runtime.queue import Key, Lane

GATHER_SECONDS = 0.3
"""So long a result waits for each other job of its model that is under way: what was applied together ends together."""
GATHER_AT_MOST = 3.0


class Offers:
    """Results of jobs by the model that they are versions of.

    Args:
        enqueue: has an object looked at in so many seconds: the model when something is offered, the jobs when they
            have got their version.
    """

    def __init__(self, enqueue: Callable[[Key, float, Lane], None]) -> None:
        self._enqueue = enqueue
        self._waiting: dict[Key, dict[str, JobView]] = defaultdict(dict)
        self._refused: dict[Key, Failure] = {}

    def make(self, job: JobView, model_name: str, under_way: int) -> Failure | None:
        """Have the model take the job's result at its next look: at once, where no other one can come soon.

        Args:
            job: with the result.
            model_name: of the model in the job's namespace.
            under_way: jobs of the model that have not ended by their status, those that have made an offer among them.

        Returns:
            Why the model cannot take it, as it was told last.
        """
        model = Key(FINE_TUNED_MODELS.kind, job.namespace, model_name)
        self._waiting[model][job.uid] = job
        if model in self._refused:
            return self._refused[model]
        others = max(0, under_way - len(self._waiting[model]))
        self._enqueue(model, min(GATHER_SECONDS * others, GATHER_AT_MOST), Lane.ENDED)
        return None

    def ended(self, namespace: str, model_name: str, under_way: int) -> None:
        """A job of the model has ended: results that have waited for it alone wait no longer.

        It may have its version already: until its status says so it counts among those that are under way.
        """
        model = Key(FINE_TUNED_MODELS.kind, namespace, model_name)
        waiting = self._waiting.get(model)
        if waiting and under_way <= len(waiting) and model not in self._refused:
            self._enqueue(model, 0, Lane.ENDED)

    def refuse(self, model: Key, said: str) -> None:
        """A write of the model is refused: its jobs say so. It is for the model to try again."""
        self.turn_away(model, refusal_of_write(f"FineTunedModel {model.name} {said}"))

    def wait(self, model: Key, said: str) -> None:
        """The model cannot take anything for now, which passes: its jobs say so."""
        self.turn_away(model, Failure.because(Reason.PENDING, f"its result waits: FineTunedModel {model.name} {said}"))

    def turn_away(self, model: Key, why: Failure) -> None:
        """The model takes nothing for now: the jobs that wait say why. It is for the model to look again."""
        self._refused[model] = why
        for job in self.of(model):
            self._look_at(job)

    def open(self, model: Key) -> None:
        """The model is there, or may be made: what was refused before is over."""
        self._refused.pop(model, None)

    def of(self, model: Key) -> list[JobView]:
        """What waits for a model, in the order in which it was offered."""
        return list(self._waiting.get(model, {}).values())

    def settle(self, model: Key, jobs: Iterable[JobView]) -> None:
        """These wait no longer: they are versions now, or gone."""
        waiting = self._waiting.get(model, {})
        for job in jobs:
            waiting.pop(job.uid, None)
            self._look_at(job)
        if not waiting:
            self._waiting.pop(model, None)

    def _look_at(self, job: JobView) -> None:
        self._enqueue(Key(FINE_TUNE_JOBS.kind, job.namespace, job.name), 0, Lane.ENDED)
