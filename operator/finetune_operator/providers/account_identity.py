"""That a connection leads elsewhere than when something was made through it. Pure."""

from finetune_api.reasons import Reason
from finetune_operator.providers.errors import Elsewhere


def account_of(arn: str) -> str | None:
    """The account that an ARN of AWS names; None where it names none."""
    parts = arn.split(":")
    return parts[4] or None if parts[0] == "arn" and len(parts) > 5 else None


def require_same_account(name: str, now: str | None, before: str | None, done_in: str) -> None:
    """Raises Elsewhere where the credentials lead to another account than before, as far as both are known."""
    if now is None or before is None or now == before:
        return
    said = f"the credentials of LLMConnection {name} lead to {now} by now, and {done_in} {before}"
    step = f"Ask an admin to let the connection lead to {before} again; another is for another LLMConnection."
    raise Elsewhere(Reason.CREDENTIALS_INVALID, f"{said}, where it may be billed", 60.0, next_step=step)


def require_same_place(name: str, now: str | None, before: str | None, done: str, *, what: str = "") -> None:
    """Raises Elsewhere where the connection leads to another place than before, as far as both are known."""
    if now is None or before is None or now == before:
        return
    message = (
        f"LLMConnection {name} leads to {what}{now} by now, and this was {done} at {what}{before}, where it may be "
        "billed: make the connection lead there as before"
    )
    step = "Ask an admin to restore the connection as it was; another place is for another LLMConnection."
    raise Elsewhere(Reason.CONNECTION_NOT_FOUND, message, 60.0, next_step=step)
