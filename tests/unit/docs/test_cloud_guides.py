"""The guides to clouds hold against the SDKs' own models: commands of other programs, and the rights that are told."""

from __future__ import annotations

import ast
import json
import re
import shlex
from collections import defaultdict
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore import xform_name
from botocore.model import ServiceModel
from botocore.session import Session
from botocore.validate import ParamValidator

from finetune_api.connection import LLMConnectionSpec
from finetune_api.manifest import Manifest
from finetune_operator.providers.connection_secret import secret_of
from tests.unit.docs.pages import ROOT, Command, commands, scripts

GUIDES, PROVIDERS = ROOT / "docs/guides", ROOT / "operator/finetune_operator/providers"
OF_THE_CLI = {"--region", "--profile"}
"""Options of both versions that are in use: the second one's --cli-binary-format ends the first with an error."""
IAM = {
    "Converse": "InvokeModel",
    "HeadBucket": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "HeadObject": "GetObject",
    "CreateMultipartUpload": "PutObject",
    "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
}
"""Operations whose right is called otherwise."""

WITHOUT_RIGHT = {"GetCallerIdentity"}
BESIDE_A_CALL = {"TagResource", "AddTags", "PassRole"}
"""Rights that no operation of ours asks for by its name: they belong to what is made with tags, or with a role."""

EXAMPLE = re.compile(r"-f (examples/\S+[.]yaml)")
SERVICES = {
    "bedrock.md": ("bedrock", "bedrock-runtime", "s3", "cloudwatch"),
    "sagemaker.md": ("sagemaker", "sagemaker-runtime", "s3", "cloudwatch"),
}
ROOMS = {
    "bedrock.md": ("bedrock/*.py", "aws/s3.py", "aws/cloudwatch.py"),
    "sagemaker.md": ("sagemaker/*.py", "aws/s3.py", "aws/cloudwatch.py"),
}


@cache
def model(service: str) -> ServiceModel:
    return Session().get_service_model(service)


def called(guide: str) -> set[str]:
    """Operations that the operator calls for a provider: they stand as strings in its rooms, in boto3's spelling."""
    files = [file for pattern in ROOMS[guide] for file in PROVIDERS.glob(pattern)]
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    words = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    words |= {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "client"}
    known = {xform_name(name): name for service in SERVICES[guide] for name in model(service).operation_names}
    return {known[word] for word in words & set(known)} - WITHOUT_RIGHT


def told(guide: str) -> set[str]:
    """Rights that the guide's table names: words in CamelCase between backticks, in rows of who needs what."""
    rows = re.findall(
        r"^\| (?:the operator|…|`roleARN`).*$", (GUIDES / guide).read_text(encoding="utf-8"), re.MULTILINE
    )
    return {word for row in rows for word in re.findall(r"(?:`|:)([A-Z][a-z]+[A-Z]\w+)`", row)}


@pytest.mark.parametrize("guide", SERVICES)
def test_a_guide_tells_each_right_that_the_operator_needs_and_none_that_it_does_not(guide: str) -> None:
    assert told(guide) - BESIDE_A_CALL == {IAM.get(name, name) for name in called(guide)}


@pytest.mark.parametrize("command", commands("aws"), ids=str)
def test_the_aws_cli_is_told_operations_and_members_that_exist(command: Command) -> None:
    service, operation, *words = command.words[1:]
    names = {xform_name(name, "-"): name for name in model(service).operation_names}
    shape = model(service).operation_model(names[operation]).input_shape
    assert shape is not None
    members = {f"--{xform_name(name, '-')}": name for name in shape.members}
    given: dict[str, Any] = {}
    for flag, value in pairwise(words):
        if flag.startswith("--") and flag not in OF_THE_CLI:
            inner = shape.members[members[flag]].type_name
            assert inner != "blob" or value.startswith("fileb://"), "the versions read other text differently"
            given[members[flag]] = json.loads(value) if inner in {"list", "structure", "map"} else value
    report = ParamValidator().validate(given, shape)
    assert not report.has_errors(), report.generate_report()


@pytest.mark.parametrize("command", commands("docker"), ids=str)
def test_docker_is_told_files_and_stages_that_exist(command: Command) -> None:
    if command.words[1] != "build":
        return
    words = command.words
    file = ROOT / (words[words.index("-f") + 1] if "-f" in words else "Dockerfile")
    stages = re.findall(r"^FROM .* AS (\S+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    assert Path(file).exists()
    assert "--target" not in words or words[words.index("--target") + 1] in stages


def typed(guide: str) -> tuple[dict[str, list[Manifest]], dict[str, set[str]]]:
    """What somebody has who typed the guide's first block: objects by kind, and the keys of each Secret."""
    objects, secrets = defaultdict[str, list[Manifest]](list), dict[str, set[str]]()
    for line in scripts(GUIDES / guide)[0].splitlines():
        words = shlex.split(line, comments=True)
        if "secret" in words:
            given = [word.partition("=")[2] for word in words if word.startswith("--from-")]
            secrets[words[words.index("generic") + 1]] = {pair.partition("=")[0] for pair in given}
        for file in (after for word, after in pairwise(words) if word == "-f" and after.startswith("examples/")):
            for manifest in yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8")):
                objects[manifest["kind"]].append(manifest)
    return objects, secrets


@pytest.mark.parametrize("guide", ["openai.md", "azure-openai.md", "bedrock.md", "sagemaker.md"])
def test_who_types_a_guides_first_block_has_all_that_its_job_names(guide: str) -> None:
    objects, secrets = typed(guide)
    names = {kind: {one["metadata"]["name"] for one in found} for kind, found in objects.items()}
    (connection,) = objects["LLMConnection"]
    name, keys = secret_of(LLMConnectionSpec.model_validate(connection["spec"])) or ("", ())
    assert secrets == {name: set(keys)}
    (job,) = objects["FineTuneJob"]
    assert job["metadata"]["namespace"] in names["Namespace"]
    assert job["spec"]["connectionRef"]["name"] == connection["metadata"]["name"]
    uris = [data["uri"] for data in job["spec"]["dataset"].values() if "uri" in data]
    assert {uri.removeprefix("pvc://").partition("/")[0] for uri in uris} <= names["PersistentVolumeClaim"]


def test_what_a_guide_applies_is_looked_at_in_its_namespace() -> None:
    """kubectl shows the context's namespace otherwise: nothing, where the guide's objects are in another one."""
    unseen = []
    for page in sorted(GUIDES.glob("*.md")):
        for script in scripts(page):
            applied = [
                yaml.safe_load_all((ROOT / file).read_text(encoding="utf-8")) for file in EXAMPLE.findall(script)
            ]
            namespaces = {one["metadata"].get("namespace") for file in applied for one in file} - {None}
            looks = [
                line for line in script.splitlines() if re.match(r"kubectl .*\b(get|describe) (ftj|ftm|md)\b", line)
            ]
            unseen += [line for line in looks if namespaces and not re.search(r"(-n|--namespace) \w|-A\b", line)]
    assert unseen == []
