"""Names of children, derived from their owner's, so that nothing is created twice."""

import re
from hashlib import sha256
from posixpath import join

from finetune_api.names import CLAIMS_PATH, RENDEZVOUS_PORT
from finetune_api.uris import Uri

LABEL_LIMIT = 63
REPLICATED_JOB = "node"
JOB_SET_LIMIT = LABEL_LIMIT - len(f"-{REPLICATED_JOB}-0-1023-abcde")
"""Maximum length of a JobSet's name, given the suffixes of its pods' names."""

PROVIDER_NAME_LIMIT = 46
"""Of a deployment's 63 characters, what remains beside a part of a UID, the attempt's number and the role."""


def fit(name: str, limit: int = LABEL_LIMIT) -> str:
    """A name as a DNS label: unchanged if it is one, or else shortened and made unique by a digest."""
    plain = name.replace(".", "-")
    if plain == name and len(name) <= limit:
        return name
    digest = sha256(name.encode()).hexdigest()[:8]
    return f"{plain[: limit - 9].rstrip('-')}-{digest}"


def training_job(job: str, attempt: int) -> str:
    """The batch Job of one attempt."""
    suffix = f"-{attempt}"
    return fit(job, LABEL_LIMIT - len(suffix)) + suffix


def measuring_job(job: str, attempt: int, number: int) -> str:
    """The batch Job of an attempt's evaluation pod at a provider; `number`: of the pod."""
    suffix = f"-{attempt}-eval{number}"
    return fit(job, LABEL_LIMIT - len(suffix)) + suffix


def deployment_at_provider(namespace: str, job: str, uid: str) -> str:
    """Name prefix of a job's deployments at a provider, without consecutive dashes."""
    own = re.sub("-+", "-", fit(f"{namespace}-{job}", PROVIDER_NAME_LIMIT))
    return f"{own}-{uid.replace('-', '')[-6:]}"


def job_set(job: str, attempt: int) -> str:
    """The JobSet of one attempt on several nodes: a DNS label that starts with a letter, short enough for pod names."""
    suffix = f"-{attempt}"
    if not job[0].isalpha():
        job = f"j-{sha256(job.encode()).hexdigest()[:8]}-{job}"
    return fit(job, JOB_SET_LIMIT - len(suffix)) + suffix


def attempt(job: str, number: int, nodes: int) -> str:
    """The object created for an attempt: a batch Job, or a JobSet for several nodes."""
    return training_job(job, number) if nodes == 1 else job_set(job, number)


def batch_job(job: str, number: int, nodes: int) -> str:
    """The batch Job with an attempt's pods, created by us or by JobSet."""
    return training_job(job, number) if nodes == 1 else set_job(job_set(job, number))


def set_job(job_set_name: str) -> str:
    """The only batch Job of our JobSet."""
    return f"{job_set_name}-{REPLICATED_JOB}-0"


def rendezvous(job: str, number: int) -> str:
    """The rendezvous address of an attempt on several nodes: the first pod, by its DNS name from JobSet's Service."""
    found = job_set(job, number)
    return f"{set_job(found)}-0.{found}:{RENDEZVOUS_PORT}"


def output_uri(artifacts: Uri, *, namespace: str, model: str, job: str, uid: str) -> str:
    """The folder of a job's checkpoints and artifact; the UID separates jobs of the same name."""
    path = join(artifacts.path, namespace, model, f"{fit(job, 54)}-{uid[:8]}")
    return f"{artifacts.scheme}://{artifacts.root}/{path}"


def claim_path(uri: Uri) -> str:
    """The path of a claim's folder inside pods."""
    return join(CLAIMS_PATH, uri.root, uri.path)
