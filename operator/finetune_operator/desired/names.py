"""Names of children: fixed by their owner's, so that nothing is ever made twice."""

from hashlib import sha256
from posixpath import join

from finetune_api.names import CLAIMS_PATH
from finetune_api.uris import Uri

LABEL_LIMIT = 63


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


def output_uri(artifacts: Uri, *, namespace: str, model: str, job: str, uid: str) -> str:
    """The folder of a job's checkpoints and artifact; the UID keeps a job of the same name apart."""
    path = join(artifacts.path, namespace, model, f"{fit(job, 54)}-{uid[:8]}")
    return f"{artifacts.scheme}://{artifacts.root}/{path}"


def claim_path(uri: Uri) -> str:
    """Where pods see a folder of a claim."""
    return join(CLAIMS_PATH, uri.root, uri.path)
