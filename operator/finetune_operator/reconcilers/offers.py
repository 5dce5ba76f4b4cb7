"""Results of jobs that are not in their model's status yet: many jobs of one model become versions by one write.

    FineTuneJob ── offers its result ──▶ Offers ── all waiting ones ──▶ FineTunedModel ── one write of its status
         ▲                                                                   │
         └──────────── is reconciled again and finds its version ◀───────────┘

Only in memory: a job without a version offers its result at each reconcile, until it is Complete.
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
"""How long a result waits for each other job of its model that has not ended: jobs applied together end together."""
GATHER_AT_MOST = 3.0


class Offers:
    """Results of jobs, by the model whose versions they become.

    Args:
        enqueue: has an object reconciled after so many seconds: the model after an offer, the jobs once they have
            their version.
    """

    def __init__(self, enqueue: Callable[[Key, float, Lane], None]) -> None:
        self._enqueue = enqueue
        self._waiting: dict[Key, dict[str, JobView]] = defaultdict(dict)
        self._refused: dict[Key, Failure] = {}

    def make(self, job: JobView, model_name: str, under_way: int) -> Failure | None:
        """Have the model take the job's result: at once, if no other result can come soon.

        Args:
            job: with the result.
            model_name: of the model in the job's namespace.
            under_way: jobs of the model that have not ended by their status, including those that have made an offer.

        Returns:
            Why the model cannot take it, if it could not at its last reconcile.
        """
        model = Key(FINE_TUNED_MODELS.kind, job.namespace, model_name)
        self._waiting[model][job.uid] = job
        if model in self._refused:
            return self._refused[model]
        others = max(0, under_way - len(self._waiting[model]))
        self._enqueue(model, min(GATHER_SECONDS * others, GATHER_AT_MOST), Lane.ENDED)
        return None

    def ended(self, namespace: str, model_name: str, under_way: int) -> None:
        """A job of the model has ended: results that waited only for that job wait no longer.

        It may have its version already: until its status says so it counts among those under way.
        """
        model = Key(FINE_TUNED_MODELS.kind, namespace, model_name)
        waiting = self._waiting.get(model)
        if waiting and under_way <= len(waiting) and model not in self._refused:
            self._enqueue(model, 0, Lane.ENDED)

    def refuse(self, model: Key, said: str) -> None:
        """A write of the model is refused: its jobs say so. The model retries."""
        self.turn_away(model, refusal_of_write(f"FineTunedModel {model.name} {said}"))

    def wait(self, model: Key, said: str) -> None:
        """The model cannot take results for now: its jobs say so and wait."""
        self.turn_away(model, Failure.because(Reason.PENDING, f"its result waits: FineTunedModel {model.name} {said}"))

    def turn_away(self, model: Key, why: Failure) -> None:
        """The model takes nothing for now: the waiting jobs say why. The model retries."""
        self._refused[model] = why
        for job in self.of(model):
            self._enqueue_job(job)

    def open(self, model: Key) -> None:
        """The model exists, or may be created: earlier refusals are over."""
        self._refused.pop(model, None)

    def of(self, model: Key) -> list[JobView]:
        """The results that wait for a model, in the order of their offers."""
        return list(self._waiting.get(model, {}).values())

    def settle(self, model: Key, jobs: Iterable[JobView]) -> None:
        """These jobs wait no longer: they are versions now, or gone."""
        waiting = self._waiting.get(model, {})
        for job in jobs:
            waiting.pop(job.uid, None)
            self._enqueue_job(job)
        if not waiting:
            self._waiting.pop(model, None)

    def _enqueue_job(self, job: JobView) -> None:
        self._enqueue(Key(FINE_TUNE_JOBS.kind, job.namespace, job.name), 0, Lane.ENDED)
