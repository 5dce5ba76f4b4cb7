"""What somebody else has changed, at its provider, in a deployment that was made for an object. Pure.

It is reported and left alone: only a new retryNonce of the user has it changed back or made again.
"""

from collections.abc import Mapping
from datetime import datetime

from finetune_api.job_status import Failure
from finetune_api.reasons import Reason
from finetune_operator.decide.conditions import timestamp
from finetune_operator.decide.deployment.hosted_record import Hosted, is_bound


def is_edited(model: str, there: Hosted) -> bool:
    """Whether it serves another model than the one it was made for, if both are known, or has no instance left.

    Names in ARM are not case-sensitive.
    """
    known = bool(model and there.model)
    another = known and there.model.casefold() != model.casefold()
    return there.state == "Ready" and (another or there.units < 1)


def failure(name: str, model: str, there: Hosted, now: datetime, *, in_place: bool) -> Failure:
    """The failure of an edited deployment. `in_place`: whether the operator can change it back in place."""
    if there.units < 1:
        said = f"deployment {name} has no instance left at the provider: somebody has scaled it to zero there"
    else:
        said = f"deployment {name} serves {there.model} at the provider, not {model}: somebody has changed it there"
    if there.bound_until is not None and is_bound(there, now):
        until = timestamp(there.bound_until)
        step = f"have it changed back there: it cannot be deleted, and is billed, until {until}, by its commitment"
    else:
        step = f"change spec.retryNonce to have it {'changed back' if in_place else 'recreated'}"
    return Failure.because(Reason.DEPLOYMENT_FAILED, f"{said}; {step}")


def other_terms(asked: str, there: Hosted) -> bool:
    """Whether its terms differ from the requested ones, where both are known."""
    return bool(asked and there.terms) and there.terms.casefold() != asked.casefold()


def terms_note(asked: str, there: Hosted, *, in_place: bool) -> str:
    """Its present terms, if they differ from the requested ones; else ""."""
    if not other_terms(asked, there):
        return ""
    step = "request it again" if in_place else "have it deleted and recreated"
    return f"; at the provider it is {there.terms}, not {asked}: change spec.retryNonce to {step}"


def renamed(model: str, prefix: str, found: Mapping[str, Hosted]) -> str:
    """Other deployments that serve a missing one's model, under names that the operator does not give; "" for none.

    Provisioned throughput can be renamed, and is still billed then.
    """
    alike = sorted(
        one.name
        for one in found.values()
        if model and one.model == model and one.address != one.name and not one.name.startswith(prefix)
    )
    if not alike:
        return ""
    names = ", ".join(alike[:3]) + (f" and {len(alike) - 3} more" if len(alike) > 3 else "")
    return f"; {names} there serves the same model: if it was renamed, attach it (spec.attach.id)"
