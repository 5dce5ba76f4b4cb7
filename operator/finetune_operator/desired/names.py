"""Names of children: fixed by their owner's, so that nothing is ever made twice."""

import re
from hashlib import sha256
from posixpath import join

from finetune_api.names import CLAIMS_PATH, RENDEZVOUS_PORT
from finetune_api.uris import Uri

LABEL_LIMIT = 63
REPLICATED_JOB = "node"
JOB_SET_LIMIT = LABEL_LIMIT - len(f"-{REPLICATED_JOB}-0-1023-abcde")
"""What the names of a JobSet's pods leave for its own."""

PROVIDER_NAME_LIMIT = 46
"""What is left of a deployment's 63 letters beside a part of a UID, an attempt's number, and which part it is."""


def fit(name: str, limit: int = LABEL_LIMIT) -> str:
    """A name as a DNS label: unchanged where it is one, else shortened and told apart by a digest."""
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
    """The batch Job of the pod that asks an attempt's model at a provider; `number`: which pod it is."""
    suffix = f"-{attempt}-eval{number}"
    return fit(job, LABEL_LIMIT - len(suffix)) + suffix


def deployment_at_provider(namespace: str, job: str, uid: str) -> str:
    """How the names of what is deployed for a job at a provider begin: no dash stands beside another."""
    own = re.sub("-+", "-", fit(f"{namespace}-{job}", PROVIDER_NAME_LIMIT))
    return f"{own}-{uid.replace('-', '')[-6:]}"


def job_set(job: str, attempt: int) -> str:
    """The JobSet of one attempt on several nodes: a DNS label that begins with a letter, short enough for its pods'."""
    suffix = f"-{attempt}"
    if not job[0].isalpha():
        job = f"j-{sha256(job.encode()).hexdigest()[:8]}-{job}"
    return fit(job, JOB_SET_LIMIT - len(suffix)) + suffix


def attempt(job: str, number: int, nodes: int) -> str:
    """The object that is made for an attempt: a batch Job, or a JobSet for several nodes."""
    return training_job(job, number) if nodes == 1 else job_set(job, number)


def batch_job(job: str, number: int, nodes: int) -> str:
    """The batch Job with the pods of an attempt, whoever makes it."""
    return training_job(job, number) if nodes == 1 else set_job(job_set(job, number))


def set_job(job_set_name: str) -> str:
    """The batch Job that JobSet makes of our JobSet: it has one."""
    return f"{job_set_name}-{REPLICATED_JOB}-0"


def rendezvous(job: str, number: int) -> str:
    """Where the pods of an attempt on several nodes meet: the first one, by the name that JobSet's Service gives it."""
    found = job_set(job, number)
    return f"{set_job(found)}-0.{found}:{RENDEZVOUS_PORT}"


def output_uri(artifacts: Uri, *, namespace: str, model: str, job: str, uid: str) -> str:
    """The folder of a job's checkpoints and artifact; the UID keeps a job of the same name apart."""
    path = join(artifacts.path, namespace, model, f"{fit(job, 54)}-{uid[:8]}")
    return f"{artifacts.scheme}://{artifacts.root}/{path}"


def claim_path(uri: Uri) -> str:
    """Where pods see a folder of a claim."""
    return join(CLAIMS_PATH, uri.root, uri.path)
