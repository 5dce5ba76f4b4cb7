"""Passes questions of an evaluation's pod on to the model of its job that they name, up to the job's limit.

Counts them. Between two writes of status the count is in memory; a new process continues from status.
"""

from datetime import datetime, timedelta

from finetune_api.asking import Candidate, ChatReply, ChatRequest, RequestingAttempt, tokens_of
from finetune_api.job import FineTuneJobSpec
from finetune_api.job_status import Failure, FineTuneJobStatus, ProviderEvaluation, TokenUsage
from finetune_api.manifest import Manifest, labels_of
from finetune_api.names import COMPONENT_LABEL
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job import asking_cost, evaluation_hosts
from finetune_operator.desired.measure_job import COMPONENT
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import Busy, NotThere, ProviderError, Refused, TryLater, Unreached
from finetune_operator.providers.remote.job_record import begun_at
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.jobs.providers import Providers
from finetune_operator.reconcilers.jobs.reports import ReportBox
from finetune_operator.reconcilers.watched.reading import parse_spec, parse_status
from finetune_operator.runtime.kube import FINE_TUNE_JOBS, PODS, TokenIdentity
from finetune_operator.runtime.queue import Key
from finetune_operator.runtime.report_server.refusals import Refusal

PAUSE_SECONDS = 5.0
SILENCE = timedelta(seconds=60)
"""How long all questions of a job may fail before its status says so: its pod retries, and most failures pass."""


class Answers:
    """Accepts questions and counts them.

    Args:
        context: what reconcilers share.
        accounts: the providers' accounts.
        reports: knows which pods belong to which job.
        providers: knows the prices.
    """

    def __init__(self, context: Context, accounts: Accounts, reports: ReportBox, providers: Providers) -> None:
        self._context = context
        self._accounts = accounts
        self._reports = reports
        self._providers = providers
        self._counts: dict[str, dict[bool, TokenUsage]] = {}
        """By the job's UID: how often its base model (True) and the model tuned from it (False) were asked."""
        self._silent: dict[str, tuple[datetime, Failure]] = {}
        """By the job's UID: since when all its questions fail, and why the last one did."""
        self._reported_silence: dict[str, bool] = {}
        """By the job's UID: whether its last reconcile was to report failing questions."""

    def authorise(self, identity: TokenIdentity, asker: RequestingAttempt) -> str | None:
        """Accept only the evaluation's pod of a job that has not ended."""
        reason = self._reports.authorise(identity, asker)
        if reason is not None:
            return reason
        pod = self._context.store.get(PODS, identity.pod_name or "", identity.namespace) or {"metadata": {}}
        measures = labels_of(pod).get(COMPONENT_LABEL) == COMPONENT
        return None if measures else "the token's pod measures no model"

    async def accept(self, asker: RequestingAttempt, question: ChatRequest) -> ChatReply:
        """The model's answer.

        Raises:
            Refusal: with a sentence for the pod's termination message, which begins with a reason.
        """
        job = self._context.store.get(FINE_TUNE_JOBS, asker.name, asker.namespace)
        spec = parse_spec(FineTuneJobSpec, job)[0] if job else None
        if job is None or spec is None or job["metadata"]["uid"] != asker.uid:
            raise Refusal(403, "the job does not exist", close=True)
        status = parse_status(FineTuneJobStatus, job)
        evaluation = _under_way(status, asker)
        model = _model(question.model, spec, status, evaluation)
        host = evaluation_hosts.of(evaluation.deployments, question.model)
        is_base = question.model == "base"
        self._require_room(job, spec, status, evaluation)
        self._count(asker.uid, evaluation, is_base, 1)
        try:
            account = self._accounts.of(spec.connection_ref.name)
            account.require_same(*begun_at(job))
            reply = await account.answer(model, question)
        except (Refused, TryLater, Unreached) as error:
            self._count(asker.uid, evaluation, is_base, -1)
            raise self._refuse(job, status, error, may_come_back=host is not None) from None
        except ProviderError as error:
            self._count(asker.uid, evaluation, is_base, 0, _billed(question, ChatReply(text="")))
            raise self._refuse(job, status, error) from None
        self._note_outcome(job, status)
        self._count(asker.uid, evaluation, is_base, 0, _billed(question, reply))
        return reply

    def asked(self, uid: str) -> tuple[TokenUsage | None, TokenUsage | None]:
        """What this process has counted for a job: for the tuned model and for its base model."""
        counts = self._counts.get(uid, {})
        return counts.get(False), counts.get(True)

    def silence(self, uid: str) -> Failure | None:
        """Why a job's questions fail, if that has lasted for a while."""
        since, failure = self._silent.get(uid, (None, None))
        return failure if since is not None and self._context.clock() - since >= SILENCE else None

    def begin(self, uid: str) -> None:
        """Another pod asks from now on: forget failures of an earlier one."""
        self._silent.pop(uid, None)

    def forget(self, uid: str) -> None:
        """Forget a job that has ended or is gone."""
        for kept in (self._counts, self._silent, self._reported_silence):
            kept.pop(uid, None)

    def _refuse(
        self, job: Manifest, status: FineTuneJobStatus, error: ProviderError, *, may_come_back: bool = False
    ) -> Refusal:
        """The pod's answer. Only the provider's failures count: not our own limit, nor a refusal of one question."""
        refusal = _refusal(error, may_come_back=may_come_back)
        if not isinstance(error, Busy):
            self._note_outcome(job, status, error if refusal.retry_after is not None else None)
        return refusal

    def _note_outcome(self, job: Manifest, status: FineTuneJobStatus, error: ProviderError | None = None) -> None:
        """Reconcile the job if its status has to begin or to stop reporting failing questions.

        Once per change: a status that reports another failure must not cause a reconcile with each answer.
        """
        metadata, now = job["metadata"], self._context.clock()
        uid = metadata["uid"]
        since = self._silent.pop(uid, None)
        if error is not None:
            self._silent[uid] = since[0] if since else now, error.failure()
        before, silent = self._reported_silence.get(uid, status.failure is not None), self.silence(uid) is not None
        self._reported_silence[uid] = silent
        if silent != before:
            self._context.enqueue(Key(FINE_TUNE_JOBS.kind, metadata["namespace"], metadata["name"]))

    def _require_room(
        self, job: Manifest, spec: FineTuneJobSpec, status: FineTuneJobStatus, evaluation: ProviderEvaluation
    ) -> None:
        """Check the job's limit of requests, and its budget.

        Raises:
            Refusal: one of them is reached.
        """
        tuned, base = self._asked(job["metadata"]["uid"], evaluation)
        rows = status.dataset.test.rows if status.dataset and status.dataset.test else 0
        allowed = asking_cost.allowance(spec, rows, evaluation)
        if tuned.answers + base.answers >= allowed:
            raise Refusal(409, f"{Reason.PROVIDER_REFUSED}: all {allowed:,} answers of this job have been asked for")
        if spec.budget is None:
            return
        connection = self._context.connection(spec.connection_ref.name)
        if connection is None:
            raise self._refuse(job, status, TryLater.because(self._context.lacking(spec.connection_ref.name)))
        facts = self._providers.facts(connection).model(spec.base_model)
        if facts.answers is None or status.cost is None:
            raise Refusal(
                402, f"{Reason.PRICE_UNKNOWN}: spec.budget: no price of asking {spec.base_model} is known any more"
            )
        asked = asking_cost.spent(evaluation.model_copy(update={"tuned": tuned, "base": base}), facts.answers)
        asked += evaluation_hosts.cost(evaluation, self._context.clock())
        trained = status.result.tokens if status.result else None
        if asking_cost.is_spent(spec.budget, status.cost, trained, facts, asked):
            message = f"tuning and the answers so far come to budget.maxCost {spec.budget.max_cost}"
            raise Refusal(402, f"{Reason.BUDGET_EXCEEDED}: {message}")

    def _asked(self, uid: str, evaluation: ProviderEvaluation) -> tuple[TokenUsage, TokenUsage]:
        counts = self._counts.get(uid, {})
        recorded = {False: evaluation.tuned or TokenUsage(), True: evaluation.base or TokenUsage()}
        return counts.get(False, recorded[False]), counts.get(True, recorded[True])

    def _count(
        self, uid: str, evaluation: ProviderEvaluation, is_base: bool, answers: int, reply: ChatReply | None = None
    ) -> None:
        before = self._asked(uid, evaluation)[is_base]
        self._counts.setdefault(uid, {})[is_base] = TokenUsage(
            answers=before.answers + answers,
            prompt_tokens=before.prompt_tokens + (reply.prompt_tokens if reply else 0),
            completion_tokens=before.completion_tokens + (reply.completion_tokens if reply else 0),
        )


def _billed(question: ChatRequest, reply: ChatReply) -> ChatReply:
    """The reply with token counts: estimated from the text's length if the provider gives none, so no reply is free."""
    asked = sum(tokens_of(message.content) for message in question.messages)
    tokens = {
        "prompt_tokens": reply.prompt_tokens or asked,
        "completion_tokens": reply.completion_tokens or tokens_of(reply.text),
    }
    return reply.model_copy(update=tokens)


def _under_way(status: FineTuneJobStatus, asker: RequestingAttempt) -> ProviderEvaluation:
    """The evaluation, if it has begun and not ended.

    Raises:
        Refusal: there is none.
    """
    provider = status.provider
    if provider is None or provider.evaluation is None or provider.attempt != asker.attempt:
        raise Refusal(403, "the job measures no model now", close=True)
    if provider.evaluation.ended or status.completion_time is not None:
        raise Refusal(403, "the job's model has been measured", close=True)
    return provider.evaluation


def _model(
    candidate: Candidate, spec: FineTuneJobSpec, status: FineTuneJobStatus, evaluation: ProviderEvaluation
) -> str:
    """The provider's ID of the model, or the deployment in which it answers.

    Raises:
        Refusal: the job does not compare with it, or it has no deployment.
    """
    name = evaluation_hosts.models(spec, status).get(candidate)
    if name is None:
        raise Refusal(404, f"{Reason.MODEL_NOT_FOUND}: the job compares with no such model", close=True)
    host = evaluation_hosts.of(evaluation.deployments, candidate)
    if host is None:
        return name
    if host.failure is not None:
        raise Refusal(404, f"{Reason.MODEL_NOT_FOUND}: {host.failure}", close=True)
    if host.address is None:
        raise Refusal(503, f"{Reason.PROVIDER_UNAVAILABLE}: its deployment is not ready", retry_after=PAUSE_SECONDS)
    return host.address


def _refusal(error: ProviderError, *, may_come_back: bool = False) -> Refusal:
    """`may_come_back`: it has a deployment, and one that has answered takes some minutes to be known everywhere."""
    sentence = f"{error.reason.value}: {error.message}"
    if isinstance(error, NotThere) and not may_come_back:
        return Refusal(404, sentence)
    if isinstance(error, Refused) and not isinstance(error, NotThere):
        return Refusal(422, sentence)
    return Refusal(503, sentence, retry_after=error.retry_after or PAUSE_SECONDS)
