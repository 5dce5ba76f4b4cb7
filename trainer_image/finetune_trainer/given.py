"""The job that a pod is given by its environment. By hand there is none, and that is said with what to do instead."""

import os
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.names import JOB_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.trainer import AttemptJob
from finetune_trainer.errors import TrainerError, places

J = TypeVar("J", bound=AttemptJob)


def job_given(model: type[J], by_hand: str) -> J:
    """The job, of this kind.

    Args:
        model: which kind.
        by_hand: what to do where no operator gives any.

    Raises:
        TrainerError: SpecInvalid, there is none, or fields of it do not fit; the message names them.
    """
    text = os.environ.get(JOB_VARIABLE)
    if text is None:
        raise TrainerError(Reason.SPEC_INVALID, f"{JOB_VARIABLE} is not set: it has a pod's job", by_hand)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise no_job(places(error), by_hand) from error


def no_job(where: str, by_hand: str) -> TrainerError:
    """What is given is no job for this image, because of these fields."""
    step = f"In a pod: take operator and image of one release. {by_hand}"
    return TrainerError(Reason.SPEC_INVALID, f"{JOB_VARIABLE} holds no job for this image: {where}", step)
