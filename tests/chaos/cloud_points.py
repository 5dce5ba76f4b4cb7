"""Every fault point at providers: each call that changes something there, and each write of a finalizer for it.

Calls are named by the SDKs' operations. Tests compare the list with the calls in the code and with those that the
simulators received in undisturbed lives. Calls that only read, and model requests, are not fault points.
"""

import ast
import re
from collections.abc import Iterator

import botocore.session
from botocore import xform_name

from tests.chaos.operator_code import TREES
from tests.chaos.walk import Fault, faults_at

POINTS: dict[str, tuple[str, ...]] = {
    "is_served at openai": ("files.create", "fine_tuning.jobs.create", "files.delete", "models.delete"),
    "is_suspended at openai": ("fine_tuning.jobs.cancel",),
    "is_served at azure": (
        "patch finetunejobs held",
        "patch finetunedmodels held",
        "files.create",
        "fine_tuning.jobs.create",
        "patch modeldeployments held",
        "deployments.create_or_update",
        "files.delete",
        "patch finetunejobs released",
        "delete modeldeployments",
        "deployments.delete",
        "patch modeldeployments released",
        "models.delete",
        "patch finetunedmodels released",
    ),
    "is_renewed at azure": ("deployments.delete",),
    "is_measured at azure": ("deployments.create_or_update", "deployments.delete"),
    "is_suspended at azure": ("fine_tuning.jobs.cancel",),
    "is_served at bedrock": (
        "PutObject",
        "CreateModelCustomizationJob",
        "CreateCustomModelDeployment",
        "DeleteObject",
        "DeleteCustomModelDeployment",
        "DeleteCustomModel",
    ),
    "is_renewed at bedrock": ("DeleteCustomModelDeployment",),
    "is_measured at bedrock": ("CreateCustomModelDeployment", "DeleteCustomModelDeployment"),
    "is_provisioned at bedrock": ("CreateProvisionedModelThroughput", "DeleteProvisionedModelThroughput"),
    "is_suspended at bedrock": ("StopModelCustomizationJob",),
    "is_served at sagemaker": (
        "PutObject",
        "CreateTrainingJob",
        "CreateModel",
        "CreateEndpointConfig",
        "CreateEndpoint",
        "DeleteObject",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
        "DeleteObjects",
    ),
    "is_renewed at sagemaker": ("DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"),
    "is_suspended at sagemaker": ("StopTrainingJob",),
    # Nothing is asked for there: what counts is that one version comes of it, and that nobody's weights go with it.
    "is_adopted at openai": (
        "create finetunedmodels",
        "patch_status finetunedmodels active 1",
        "apply modeldeployments",
        "patch_status finetunedmodels ready 1",
    ),
    "is_adopted at azure": ("patch_status finetunedmodels ready 1",),
    "is_adopted at bedrock": ("patch_status finetunedmodels ready 1",),
    "is_adopted at sagemaker": ("patch_status finetunedmodels ready 1",),
    "is_large at sagemaker": (
        "CreateMultipartUpload",
        "UploadPart",
        "AbortMultipartUpload",
        "CompleteMultipartUpload",
    ),
    "sleeps at azure": ("patch_status modeldeployments Idle", "deployments.delete"),
    "sleeps at bedrock": ("DeleteProvisionedModelThroughput",),
    "sleeps at sagemaker": ("DeleteEndpoint", "DeleteEndpointConfig", "DeleteModel"),
    "fails at azure": ("patch_status finetunejobs Failed",),
    "is_robbed at azure": ("patch_status modeldeployments Failed",),
    "is_deployed_in_vain at azure": ("deployments.delete",),
    "is_turned_away at openai": ("fine_tuning.jobs.create", "files.delete"),
    "is_refused_room at azure": ("deployments.create_or_update",),
    "is_refused_room at bedrock": ("CreateProvisionedModelThroughput",),
    "is_refused_room at sagemaker": ("CreateEndpoint",),
    "is_attached at azure": ("deployments.delete",),
    "is_attached at bedrock": ("DeleteCustomModelDeployment",),
    "is_attached at sagemaker": ("DeleteEndpoint",),
}

AGAIN: dict[str, tuple[str, ...]] = {
    **{f"{life} at {provider}": ("fine_tuning.jobs.create",)
       for life in ("fails", "is_suspended", "is_robbed_of_its_job") for provider in ("openai", "azure")},
    **{f"{life} at bedrock": ("CreateModelCustomizationJob",) for life in ("fails", "is_suspended")},
    **{f"{life} at sagemaker": ("CreateTrainingJob",) for life in ("fails", "is_suspended")},
    **{f"{life} at azure": ("deployments.create_or_update",)
       for life in ("sleeps", "expires", "is_robbed", "is_refused_room", "is_deployed_in_vain")},
    **{f"{life} at bedrock": ("CreateProvisionedModelThroughput",)
       for life in ("sleeps", "is_robbed", "is_refused_room")},
    "is_deployed_in_vain at bedrock": ("CreateCustomModelDeployment",),
    **{f"{life} at sagemaker": ("CreateEndpoint",)
       for life in ("sleeps", "is_robbed", "is_refused_room", "is_deployed_in_vain")},
}  # fmt: skip
"""Calls that a life repeats on purpose: an operator that forgets the first one, or the request, would pay twice."""

FAULTS = faults_at(POINTS) + faults_at(AGAIN, again=True)

QUICK = {
    Fault("is_served at openai", "fine_tuning.jobs.create", "after"),
    Fault("is_served at azure", "fine_tuning.jobs.create", "after"),
    Fault("is_served at azure", "deployments.create_or_update", "after"),
    Fault("is_served at bedrock", "CreateModelCustomizationJob", "after"),
    Fault("is_served at bedrock", "CreateCustomModelDeployment", "after"),
    Fault("is_served at sagemaker", "CreateTrainingJob", "after"),
    Fault("is_served at sagemaker", "CreateEndpoint", "after"),
}
"""Points where something could be billed twice. Every test run covers these; the others are marked slow."""

_SERVICES = ("bedrock", "bedrock-runtime", "cloudwatch", "s3", "sagemaker", "sagemaker-runtime")
_READS = re.compile(
    r"(Get|List|Describe|Head)[A-Z]|Invoke|Converse"
    r"|chat\.|entra\.|.*\.(list|list_events|get|retrieve|content|query)(_\w+)?$"
)
_CLIENTS = re.compile(r"self\._(sdk|arm)\.(.+)")
_RAW = {"/files": "files.create"}
"""Calls that the code posts by path, without an operation of the SDK."""


def at_providers(points: Iterator[str] | list[str] | tuple[str, ...]) -> set[str]:
    """The points that are calls to providers and change something there."""
    return {point for point in points if " " not in point and not _READS.match(point)}


def calls_in_the_code() -> set[str]:
    """Every operation of a provider's SDK that the operator's code names, and that changes something."""
    session = botocore.session.get_session()
    of_aws = {
        xform_name(name): name for service in _SERVICES for name in session.get_service_model(service).operation_names
    }
    found: set[str] = set()
    for tree in TREES:
        nodes = list(ast.walk(tree))
        parts = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        found |= {name for node in nodes if id(node) not in parts for name in _named(node, of_aws)}
    return {name for name in found if not _READS.match(name)}


def _named(node: ast.AST, of_aws: dict[str, str]) -> Iterator[str]:
    """AWS's operations as strings or as a client's methods; OpenAI's and ARM's as chains of attributes."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from (table[node.value] for table in (of_aws, _RAW) if node.value in table)
    if isinstance(node, ast.Attribute):
        chain = _CLIENTS.fullmatch(ast.unparse(node))
        if chain is not None and "." in chain[2]:
            yield re.sub(r"\bbegin_|\bwith_raw_response\.", "", chain[2])
        elif ast.unparse(node.value) == "client" and node.attr in of_aws:
            yield of_aws[node.attr]
