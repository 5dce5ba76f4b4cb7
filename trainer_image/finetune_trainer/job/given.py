"""The job that a pod gets through its environment, and the credentials for its data.

When run by hand there is no job, and the error says what to do instead; credentials are in the shell's environment.
"""

import logging
import os
from collections.abc import Mapping, MutableMapping
from typing import TypeVar

from pydantic import ValidationError

from finetune_api.names import DATA_PREFIX, JOB_VARIABLE
from finetune_api.reasons import Reason
from finetune_api.trainer import AttemptJob
from finetune_trainer.errors import TrainerError, places
from finetune_trainer.storage.store_clients import PROXIES, take_proxy

J = TypeVar("J", bound=AttemptJob)

HUB_TOKEN = "HF_TOKEN"  # noqa: S105 - a name, not a secret
DATA_KEYS = PROXIES | {
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE", "AWS_REQUEST_PAYER",
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_TENANT_ID", "AZURE_STORAGE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_STORAGE_ANON",
    "AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET",
    "GOOGLE_APPLICATION_CREDENTIALS_JSON", "GOOGLE_CLOUD_PROJECT", "STORAGE_EMULATOR_HOST",
    "HF_TOKEN", "HF_ENDPOINT",
    "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
"""Keys of dataset.secretRef that become environment variables of this process: those used by stores, hubs and proxies.

None of them names code or a command, unlike variables of Python, of the dynamic linker and of AWS's config files.
"""

logger = logging.getLogger(__name__)


def job_given(model: type[J], by_hand: str) -> J:
    """The job, parsed as this model.

    `by_hand` is the next step if no operator provides a job.

    Raises:
        TrainerError: SpecInvalid, there is none, or some of its fields are invalid; the message names them.
    """
    text = os.environ.get(JOB_VARIABLE)
    if text is None:
        raise TrainerError(Reason.SPEC_INVALID, f"{JOB_VARIABLE} is not set: it has a pod's job", by_hand)
    try:
        job = model.model_validate_json(text)
    except ValidationError as error:
        raise no_job(places(error), by_hand) from error
    take_data_keys(os.environ, kept=() if job.spec.hub_token_secret_ref is None else (HUB_TOKEN,))
    take_proxy(os.environ)
    return job


def take_data_keys(environment: MutableMapping[str, str], kept: tuple[str, ...] = ()) -> None:
    """Set environment variables from the known keys of dataset.secretRef; `kept` have a Secret of their own."""
    given = data_keys(environment)
    if "AWS_DEFAULT_REGION" in given:  # a pod's identity may set AWS_REGION to the cluster's region
        given = {"AWS_REGION": given["AWS_DEFAULT_REGION"], **given}
    # Values created from files end with a line break, which no store accepts.
    environment.update({name: value.strip() for name, value in given.items() if name in DATA_KEYS and name not in kept})
    unknown = sorted(given.keys() - DATA_KEYS)
    if unknown:
        logger.warning("dataset.secretRef: keys that no store asks for are spec.code's alone: %s", ", ".join(unknown))


def data_keys(environment: Mapping[str, str]) -> dict[str, str]:
    """All keys of dataset.secretRef, under their own names."""
    return {
        name.removeprefix(DATA_PREFIX): value for name, value in environment.items() if name.startswith(DATA_PREFIX)
    }


def no_job(where: str, by_hand: str) -> TrainerError:
    """The error for a job that this image cannot parse, because of these fields."""
    step = f"In a pod: take operator and image of one release. {by_hand}"
    return TrainerError(Reason.SPEC_INVALID, f"{JOB_VARIABLE} holds no job for this image: {where}", step)
