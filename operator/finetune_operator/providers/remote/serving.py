"""Serving at a provider that needs no deployments: a model that exists answers.

Whether it exists is cached, since requests count towards the provider's rate limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.decide.transient import TEMPORARY
from finetune_operator.providers.accounts.registry import Accounts
from finetune_operator.providers.calls.errors import ConnectionMoved, ProviderError, TryLater, Unknown, model_gone

GOOD_FOR, BAD_FOR = timedelta(minutes=10), timedelta(seconds=30)


@dataclass(frozen=True)
class _Probe:
    serving: Serving
    at: datetime


class CloudServing:
    """Checks whether models exist, through the providers' accounts."""

    def __init__(self, accounts: Accounts, clock: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._clock = clock
        self._probes: dict[tuple[str, str], _Probe] = {}

    async def observe(self, target: Target, served: int | None) -> Serving:
        """Whether the version's model exists. `served`: the version that was last seen to answer.

        A call that fails does not prove that the model stopped answering. After a transient error a served version
        stays Serving and another one Rolling; after others, such as a bad key, it is Failing, but available if served.
        """
        number, model = target.version.version, target.version.artifact.provider_model_id or ""
        account = self._accounts.of(target.version.connection)
        try:
            await account.require_models(target.version)
        except ConnectionMoved as elsewhere:
            return Serving("Failing", number, 0, elsewhere.failure())
        except (TryLater, Unknown) as error:
            return _unasked(error, number, served)
        before = self._probes.get((target.version.connection, model))
        if before is not None and self._clock() - before.at < self.good_for(before.serving):
            return replace(before.serving, version=number)  # two versions of an adopted job share one model
        try:
            there = await account.call(lambda api: api.has_model(model))
        except (TryLater, Unknown) as error:
            return _unasked(error, number, served)
        except ProviderError as error:
            found = Serving("Failing", number, 0, error.failure())
        else:
            found = Serving("Serving", number, 1)
            if not there:
                found = Serving("Failing", number, 0, model_gone(model).failure())
        self._drop_expired()
        self._probes[target.version.connection, model] = _Probe(found, self._clock())
        return found

    def recheck(self, target: Target) -> None:
        """Drop the cached result, as another source reported possibly newer news of the deployment."""
        self._probes.pop((target.version.connection, target.version.artifact.provider_model_id or ""), None)

    def _drop_expired(self) -> None:
        """Drop expired results, which would pile up over the operator's lifetime."""
        now = self._clock()
        fresh = {of: one for of, one in self._probes.items() if now - one.at < self.good_for(one.serving)}
        self._probes = fresh

    @staticmethod
    def good_for(serving: Serving) -> timedelta:
        """How long an observation is cached."""
        return GOOD_FOR if serving.state == "Serving" else BAD_FOR


def _unasked(error: ProviderError, number: int, served: int | None) -> Serving:
    if error.reason not in TEMPORARY:
        return Serving("Failing", number, int(served == number), error.failure())
    if served == number:
        return Serving("Serving", number, 1)
    return Serving("Rolling", number, note=f"; {error.message}")
