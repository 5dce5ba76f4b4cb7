"""Models and versions that are named before their jobs have ended: objects of one commit are applied together."""

from collections.abc import Sequence


def made_by(makers: Sequence[str]) -> str:
    """When a model, or its next version, is made.

    Args:
        makers: the model's jobs that have not ended; at least one.
    """
    among = f", or another of {len(makers)}," if len(makers) > 1 else ""
    return f"it is made when FineTuneJob {makers[0]}{among} succeeds"


def version_to_come(number: int, latest: int, makers: Sequence[str]) -> str:
    """When a missing version is made; "" if no job that is under way can make it.

    Args:
        number: of the version.
        latest: the highest number given so far: no number is given twice.
        makers: the model's jobs that have not ended.
    """
    after = number - latest
    if not 0 < after <= len(makers):
        return ""
    return made_by(makers) if after == 1 else f"it is made when {after} of {len(makers)} FineTuneJobs succeed"
