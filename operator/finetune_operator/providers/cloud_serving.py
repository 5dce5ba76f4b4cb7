"""Serving by a provider outside of the cluster that needs no deployment: a model that is there answers.

Whether it is there is asked rarely: the answer of a moment ago is good enough, and asking is not free of limits.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from finetune_operator.decide.deployment.server_state import Serving
from finetune_operator.decide.deployment.serving_target import Target
from finetune_operator.decide.transient import CHANGES_BY_ITSELF
from finetune_operator.providers.accounts import Accounts
from finetune_operator.providers.errors import Elsewhere, ProviderError, TryLater, Unknown, model_gone

GOOD_FOR, BAD_FOR = timedelta(minutes=10), timedelta(seconds=30)


@dataclass(frozen=True)
class _Probe:
    serving: Serving
    at: datetime


class CloudServing:
    """Looks whether models answer, through the providers' accounts."""

    def __init__(self, accounts: Accounts, clock: Callable[[], datetime]) -> None:
        self._accounts = accounts
        self._clock = clock
        self._probes: dict[tuple[str, str], _Probe] = {}

    async def observe(self, target: Target, served: int | None) -> Serving:
        """Whether the version's model is there. `served`: the version that was last seen to answer.

        A provider that cannot be asked is no proof that what answered a moment ago has stopped: what passes by itself
        is no news, and else, as with a bad key, it is Failing and `available`. Nor has what was never asked failed.
        """
        number, model = target.version.version, target.version.artifact.provider_model_id or ""
        account = self._accounts.of(target.version.connection)
        try:
            await account.require_models(target.version)
        except Elsewhere as elsewhere:
            return Serving("Failing", number, 0, elsewhere.failure())
        except (TryLater, Unknown) as error:
            return _unasked(error, number, served)
        before = self._probes.get((target.version.connection, model))
        if before is not None and self._clock() - before.at < self.good_for(before.serving):
            return replace(before.serving, version=number)  # a job that two have adopted is two versions
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
        self._forget_old()
        self._probes[target.version.connection, model] = _Probe(found, self._clock())
        return found

    def doubt(self, target: Target) -> None:
        """Ask anew: somebody else has told of the deployment since, of what may have been seen later."""
        self._probes.pop((target.version.connection, target.version.artifact.provider_model_id or ""), None)

    def _forget_old(self) -> None:
        """What is not believed any more is kept for nobody: models come and go as long as the operator runs."""
        now = self._clock()
        fresh = {of: one for of, one in self._probes.items() if now - one.at < self.good_for(one.serving)}
        self._probes = fresh

    @staticmethod
    def good_for(serving: Serving) -> timedelta:
        """How long an observation is believed."""
        return GOOD_FOR if serving.state == "Serving" else BAD_FOR


def _unasked(error: ProviderError, number: int, served: int | None) -> Serving:
    if error.reason not in CHANGES_BY_ITSELF:
        return Serving("Failing", number, int(served == number), error.failure())
    if served == number:
        return Serving("Serving", number, 1)
    return Serving("Rolling", number, note=f"; {error.message}")
