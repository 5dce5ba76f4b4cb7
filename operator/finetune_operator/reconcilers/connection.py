"""LLMConnection: observe, decide, write status.

For a provider it tries the credentials; for every connection, whether the API server would accept its pods.
"""

import logging
from datetime import datetime, timedelta

from finetune_api.connection import LLMConnectionSpec, LLMConnectionStatus
from finetune_api.manifest import Manifest, annotations_of
from finetune_api.policy import selects
from finetune_operator.decide import connection as decide_connection
from finetune_operator.decide import ignored_fields
from finetune_operator.decide.cloud_job.cloud_policy import closes
from finetune_operator.decide.conditions import stalled_event
from finetune_operator.decide.connection import Checked
from finetune_operator.decide.pods.field_paths import in_words_of
from finetune_operator.desired import trial_job
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import Busy, ProviderError
from finetune_operator.providers.catalogue import catalogue_name
from finetune_operator.providers.sdks import is_remote
from finetune_operator.reconcilers.context import Context
from finetune_operator.reconcilers.watched.reading import parse_spec, parse_status, unread_spec
from finetune_operator.runtime.errors import Conflict, Forbidden, Invalid, NotFound, Transient, Unadmitted
from finetune_operator.runtime.kube import CONNECTIONS, JOBS, NAMESPACES
from finetune_operator.runtime.lru_cache import LRUCache
from finetune_operator.runtime.queue import Key, Requeue

logger = logging.getLogger(__name__)

LEFT_ALONE = 256
"""How many connections are remembered as left to another operator."""


class _WrittenByAnother(Exception):
    """Another operator, whose credentials may be good, has written the connection's status lately."""

    def __init__(self, left: float) -> None:
        super().__init__("told by another operator")
        self.retry_after = min(left, decide_connection.BAD_FOR.total_seconds())


class ConnectionReconciler:
    """Checks whether connections can be used."""

    def __init__(self, context: Context, accounts: Accounts, namespaces: tuple[str, ...]) -> None:
        self._context = context
        self._namespaces = namespaces
        self._accounts = accounts
        self._left_alone: LRUCache[tuple[int, datetime]] = LRUCache(LEFT_ALONE)
        """By name: the generation that another operator reported on, and until when it is left alone."""

    async def reconcile(self, key: Key) -> Requeue | None:
        """Reconcile one connection."""
        connection = await self._context.read(CONNECTIONS, key)
        if connection is None:
            await self._accounts.drop(key.name)
            return None
        spec, spec_error = parse_spec(LLMConnectionSpec, connection)
        if spec is not None:
            await self._context.announce_ignored(
                connection, ignored_fields.of_connection(spec, annotations_of(connection))
            )
        status = parse_status(LLMConnectionStatus, connection)
        generation, now = connection["metadata"]["generation"], self._context.clock()
        checked, again = None, None
        doubted = self._accounts.of(key.name).key_refused
        left = decide_connection.check_is_due(status, generation=generation, now=now, doubted=doubted)
        if spec is not None and (left := max(left, self._seconds_left_alone(key.name, generation, now))) > 0:
            return Requeue(left)
        if spec is not None and spec.hugging_face is not None:
            again = Requeue(decide_connection.BAD_FOR.total_seconds())
            try:
                checked = await self._try_pods(spec)
            except Transient as error:
                logger.warning("a pod of a connection cannot be tried now: %s", error.message)
                if status.observed_generation == generation:
                    return again  # keep what is known of this spec
        elif spec is not None and is_remote(spec):
            try:
                connection, status, checked = await self._check_account(connection, spec, status)
            except (Busy, _WrittenByAnother) as later:
                return Requeue(later.retry_after or 1.0)
            again = Requeue(decide_connection.BAD_FOR.total_seconds())
        new = decide_connection.decide(
            spec,
            unread_spec(LLMConnectionSpec, connection, spec_error),
            status,
            generation=generation,
            now=now,
            checked=checked,
            retires=closes(self._context.catalogue().of(catalogue_name(spec))) if spec is not None else None,
            nobody=spec is not None and self._first_namespace(spec) is None,
        )
        # Otherwise each check would trigger a reconcile of all jobs of the connection.
        same = decide_connection.affects_nothing(status, new)
        await self._context.write_status(CONNECTIONS, connection, status, new, notified=same)
        await self._context.announce_event(connection, stalled_event(status.conditions, new.conditions))
        return again

    def _seconds_left_alone(self, name: str, generation: int, now: datetime) -> float:
        """Seconds for which a connection is left to the operator that reported on it."""
        known, until = self._left_alone.get(name) or (None, now)
        return (until - now).total_seconds() if known == generation else 0.0

    async def _try_pods(self, spec: LLMConnectionSpec) -> Checked | None:
        """Dry-run a pod of the connection in a namespace that may use it; None if there is no such namespace.

        Other refusals concern that namespace: a quota, a policy, a webhook without an answer. They show on jobs.

        Raises:
            Transient: the API server could not answer.
        """
        namespace, pod = self._first_namespace(spec), spec.hugging_face or spec.check_pod
        if namespace is None or pod is None:
            return None
        try:
            await self._context.kube.would_create(JOBS, trial_job.build(namespace, pod))
        except Invalid as refusal:
            said = in_words_of(spec, refusal.message)
            if said is not None or trial_job.is_about_pod_settings(refusal.message):
                return Checked(decide_connection.pod_refused(said or refusal.message, elsewhere=is_remote(spec)))
        except (Conflict, Forbidden, NotFound, Unadmitted) as error:
            logger.info("a pod of a connection cannot be tried in namespace %s: %s", namespace, error.message)
        return Checked()

    def _first_namespace(self, spec: LLMConnectionSpec) -> str | None:
        """A watched namespace whose jobs may use the connection."""
        for _, name in sorted(self._context.store.addresses(NAMESPACES)):
            looked_after = not self._namespaces or name in self._namespaces
            selected = looked_after and selects(spec.namespace_selector, self._context.labels_of(name))
            if selected and not self._context.is_ending(name):
                return name
        return None

    async def _check_account(
        self, connection: Manifest, spec: LLMConnectionSpec, status: LLMConnectionStatus
    ) -> tuple[Manifest, LLMConnectionStatus, Checked]:
        """Resolve the workspace, if there is one, and check the credentials.

        The workspace is written to status first: all calls depend on it.

        Raises:
            Busy: the check waits for its turn.
            _WrittenByAnother: this process's credentials are bad, but another operator's may be good.
        """
        name = connection["metadata"]["name"]
        try:
            found = await self._accounts.of(name).resolve(spec)
            resolved = status.model_copy(update={"azure_open_ai": found})
            connection = await self._context.write_status(CONNECTIONS, connection, status, resolved) or connection
            status = resolved
            await self._accounts.of(name).check()
            return connection, status, await self._check_pods(spec)
        except Busy:
            raise
        except ProviderError as error:
            left = self._context.seconds_left_to_another(connection)
            if self._context.written_by_another(connection):
                left = max(left, decide_connection.checked_by_another(status, self._context.clock()))
            if left > 0:
                later = _WrittenByAnother(left)
                # Refused credentials cause an early new check, and no status write would record when the last one was.
                until = self._context.clock() + timedelta(seconds=later.retry_after)
                self._left_alone.put(name, (connection["metadata"]["generation"], until))
                raise later from error
            return connection, status, Checked(error.failure())

    async def _check_pods(self, spec: LLMConnectionSpec) -> Checked:
        """Dry-run the pods that check data for a provider; no failure if the API server cannot answer now."""
        try:
            return await self._try_pods(spec) or Checked()
        except Transient as error:
            logger.warning("a pod of a connection cannot be tried now: %s", error.message)
            return Checked()
