"""Checks that a connection still leads to the place and account where an object was created. Pure."""

from finetune_api.reasons import Reason
from finetune_operator.providers.calls.errors import ConnectionMoved


def account_of(arn: str) -> str | None:
    """The account ID in an AWS ARN; None if it has none."""
    parts = arn.split(":")
    return parts[4] or None if parts[0] == "arn" and len(parts) > 5 else None


def require_same_account(name: str, now: str | None, before: str | None, done_in: str) -> None:
    """Raise ConnectionMoved if the credentials lead to another account than before, if both are known."""
    if now is None or before is None or now == before:
        return
    said = f"the credentials of LLMConnection {name} lead to {now} by now, and {done_in} {before}"
    step = f"Ask an admin to let the connection lead to {before} again; another is for another LLMConnection."
    raise ConnectionMoved(Reason.CREDENTIALS_INVALID, f"{said}, where it may be billed", 60.0, next_step=step)


def require_same_place(name: str, now: str | None, before: str | None, done: str, *, what: str = "") -> None:
    """Raise ConnectionMoved if the connection leads to another place than before, if both are known."""
    if now is None or before is None or now == before:
        return
    message = (
        f"LLMConnection {name} leads to {what}{now} by now, and this was {done} at {what}{before}, where it may be "
        "billed: make the connection lead there as before"
    )
    step = "Ask an admin to restore the connection as it was; another place is for another LLMConnection."
    raise ConnectionMoved(Reason.CONNECTION_NOT_FOUND, message, 60.0, next_step=step)
