"""Finds the model in the S3 output of an adopted training job, and its kind, without reading weights.

    s3://…/output/model/          CompressionType NONE: a folder, with the model in it or in one folder below it
    s3://…/output/model.tar.gz    otherwise: an archive, which is streamed until the model is identified

Supported is what `finetune-trainer serve` loads: safetensors, as a peft adapter or a transformers model.
"""

import hashlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from finetune_api.job_status import ArtifactRef, Failure
from finetune_api.names import ARTIFACT_FOLDER, MANIFEST
from finetune_api.peft_only import peft_only
from finetune_api.reasons import Reason
from finetune_operator.decide.cloud_job.cloud_policy import ARCHIVE
from finetune_operator.providers.aws.client import Aws
from finetune_operator.providers.aws.refusals import STORE
from finetune_operator.providers.aws.s3 import Bucket, place_of
from finetune_operator.providers.calls.errors import Denied, NotThere, ProviderError, Refused

CONFIG_MAX_BYTES = 1024 * 1024
MANIFEST_MAX_BYTES = 4 * 1024 * 1024
ARCHIVE_MAX_BYTES = 4 * 1024**3
"""How much of an archive's content is searched."""
ARCHIVE_MAX_FILES = 5_000
"""How many of an archive's files are searched: it is untrusted, and their names are kept in memory."""
CONFIGS_MAX_BYTES = 16 * 1024 * 1024
"""Maximum size of all configurations in an archive together."""

ADAPTER_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"
ADAPTER_WEIGHTS, WEIGHTS = "adapter_model.safetensors", ".safetensors"
_ANSWERS = re.compile(r"(ForCausalLM|ForConditionalGeneration|LMHeadModel)$")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_EXTENDED_HEADERS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
_STEP = "Adopt a job that leaves safetensors: an adapter with adapter_config.json, or a model with config.json."


@dataclass
class Files:
    """Sizes of files by name within the output, and contents of configurations."""

    sizes: dict[str, int] = field(default_factory=dict)
    configs: dict[str, bytes] = field(default_factory=dict)

    def roots(self) -> list[str]:
        """Folders with a model, as prefixes: "" is the output itself."""
        return sorted(
            {name[: -len(_base(name))] for name in self.configs if _base(name) in {ADAPTER_CONFIG, MODEL_CONFIG}}
        )

    def below(self, root: str) -> "Files":
        """The files in a folder."""
        return Files(
            {name.removeprefix(root): size for name, size in self.sizes.items() if name.startswith(root)},
            {name.removeprefix(root): text for name, text in self.configs.items() if name.startswith(root)},
        )


async def adopted(aws: Aws, uri: str) -> ArtifactRef:
    """The model of a training job's output.

    Args:
        aws: with keys that may read it.
        uri: ModelArtifacts of DescribeTrainingJob.

    Raises:
        Refused: it has no model that can be served.
        ProviderError: S3 cannot be read.
    """
    return await (_archive(aws, uri) if uri.endswith(ARCHIVE) else _folder(aws, uri.rstrip("/")))


async def _folder(aws: Aws, uri: str) -> ArtifactRef:
    place, key = place_of(uri)
    bucket = Bucket(aws, place)
    found = Files({one.name.removeprefix(f"{key}/"): one.bytes for one in await bucket.objects(f"{key}/")})
    for name in found.sizes:
        if name.count("/") <= 1 and _base(name) in {ADAPTER_CONFIG, MODEL_CONFIG}:
            found.configs[name] = await bucket.read(f"{key}/{name}", CONFIG_MAX_BYTES)
    root = _root(found.roots(), uri)
    files = found.below(root)
    artifact = described(files, f"{uri}/{root}".rstrip("/"))
    digest = None
    if MANIFEST in files.sizes:
        digest, wrong = await checked(bucket, f"{key}/{root}", files.sizes)
        if wrong:
            raise _unusable(f"{artifact.uri}: {wrong}")
    return artifact.model_copy(update={"bytes": sum(files.sizes.values()), "sha256": digest})


async def checked(bucket: Bucket, folder: str, sizes: Mapping[str, int]) -> tuple[str, str | None]:
    """SHA-256 of a folder's manifest, and which file is missing or truncated; contents are verified later.

    Args:
        bucket: where it is.
        folder: its name there, with the slash.
        sizes: of the existing files.
    """
    manifest = await bucket.read(f"{folder}{MANIFEST}", MANIFEST_MAX_BYTES)
    wrong = next((file for file, size in _manifest_sizes(manifest).items() if sizes.get(file) != size), None)
    return hashlib.sha256(manifest).hexdigest(), f"{wrong} is missing or cut short" if wrong else None


async def _archive(aws: Aws, uri: str) -> ArtifactRef:
    place, key = place_of(uri)

    size = (await Bucket(aws, place).head(key)).bytes

    def read(client: Any) -> Files:
        with client.get_object(Bucket=place.bucket, Key=key)["Body"] as body:
            return read_archive(body, uri)

    found = await aws.run(STORE, read, size=size)
    roots = [root for root in found.roots() if root in {"", f"{ARTIFACT_FOLDER}/"}]
    return described(found.below(_root(roots, uri)), uri).model_copy(update={"bytes": size})


def _manifest_sizes(manifest: bytes) -> dict[str, int]:
    """Sizes of files in our trainer's manifest; empty for a foreign file of that name."""
    try:
        return {name: int(entry["bytes"]) for name, entry in orjson.loads(manifest)["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def is_about_output(error: ProviderError) -> bool:
    """Whether an error is about an adopted job's output or its location, and not about the connection."""
    return isinstance(error, Refused | Denied) or error.reason is Reason.BUCKET_NOT_FOUND


def failure_of(error: ProviderError) -> Failure:
    """The failure if an adopted job's output gives no version, with a step to fix the output or its bucket."""
    message, step = error.message, _STEP
    if error.reason is Reason.CREDENTIALS_INVALID:
        step = "Let the operator's identity list and read the job's output in S3, then set spec.retryNonce."
    elif isinstance(error, NotThere) or error.reason is Reason.BUCKET_NOT_FOUND:
        message = "spec.adopt: what the job has written is not in S3 any more"
        step = "Bring it back to S3 and set spec.retryNonce, or adopt another job."
    return Failure(reason=error.reason, message=message, next_step=step)


def read_archive(body: Any, uri: str) -> Files:
    """Read names and configurations of a streamed archive until its model is identified. Buffers one block.

    Raises:
        Refused: it is not an archive, or its model is too far inside.
    """
    found = Files()
    try:
        with tarfile.open(fileobj=body, mode="r|gz", tarinfo=_Member) as archive:
            for member in _files_of(archive, uri):
                name = member.name.removeprefix("./")
                found.sizes[name] = member.size
                if _base(name) in {ADAPTER_CONFIG, MODEL_CONFIG} and member.size <= CONFIG_MAX_BYTES:
                    content = archive.extractfile(member)
                    found.configs[name] = content.read() if content else b""
                if _is_known(found.below(name[: -len(_base(name))])):
                    break
                _require_bounded(found, uri)
    except (tarfile.TarError, EOFError) as error:
        raise _unusable(f"{uri} is not an archive that can be read ({type(error).__name__})") from None
    return found


class _Member(tarfile.TarInfo):
    """An archive's header with a limit on long names, which tarfile would read into memory at any length."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _EXTENDED_HEADERS and member.size > CONFIG_MAX_BYTES:
            raise tarfile.ReadError("a name too long")
        return member


def _require_bounded(found: Files, uri: str) -> None:
    if len(found.sizes) > ARCHIVE_MAX_FILES:
        raise _unusable(f"{uri} shows no model in its first {ARCHIVE_MAX_FILES} files")
    if sum(map(len, found.configs.values())) > CONFIGS_MAX_BYTES:
        raise _unusable(f"{uri} has more than {CONFIGS_MAX_BYTES // 1024**2} MiB of configurations")


def _files_of(archive: tarfile.TarFile, uri: str) -> Iterator[tarfile.TarInfo]:
    for member in archive:
        if member.isfile():
            yield member
        if member.offset_data + member.size > ARCHIVE_MAX_BYTES:
            said = f"{uri} shows no model in its first {ARCHIVE_MAX_BYTES // 1024**3} GiB"
            raise _unusable(f"{said}: have the job write its files apart (OutputDataConfig.CompressionType: NONE)")


def _is_known(files: Files) -> bool:
    """Whether the model is identified, so that the rest of an archive need not be read."""
    if ADAPTER_CONFIG in files.configs:
        return ADAPTER_WEIGHTS in files.sizes
    return MODEL_CONFIG in files.configs and any(_is_weights(name) for name in files.sizes)


def _root(roots: list[str], uri: str) -> str:
    """The model's folder: the top, or the only folder with a model."""
    if "" in roots:
        return ""
    if len(roots) == 1:
        return roots[0]
    if not roots:
        raise _unusable(f"{uri} has neither {ADAPTER_CONFIG} nor {MODEL_CONFIG}")
    some = ", ".join(root.rstrip("/") for root in roots[:3])
    raise _unusable(f"{uri} has {len(roots)} models ({some}) and none at its top")


def described(files: Files, uri: str) -> ArtifactRef:
    """The model in a folder. Pure.

    Raises:
        Refused: it cannot be served.
    """
    name = ADAPTER_CONFIG if ADAPTER_CONFIG in files.configs else MODEL_CONFIG
    config = _parsed(files.configs[name], f"{uri}: {name}")
    if name == ADAPTER_CONFIG:
        return _adapter(config, files, uri)
    if not any(_is_weights(one) for one in files.sizes):
        pickled = next((one for one in files.sizes if one.endswith((".bin", ".pt", ".pth"))), None)
        raise _unusable(f"{uri} has no *{WEIGHTS}" + (f"; {pickled} is pickled, and is not loaded" if pickled else ""))
    named = config.get("architectures")
    kinds = [str(one) for one in named] if isinstance(named, list) else []
    if kinds and not any(_ANSWERS.search(one) for one in kinds):
        raise _unusable(f"{uri}: {kinds[0]} is not a model that answers in text")
    encoder_decoder = bool(config.get("is_encoder_decoder"))
    return ArtifactRef(uri=uri, kind="Full", architecture="Seq2SeqLM" if encoder_decoder else "CausalLM")


def _adapter(config: Mapping[str, Any], files: Files, uri: str) -> ArtifactRef:
    if ADAPTER_WEIGHTS not in files.sizes:
        raise _unusable(f"{uri} has no {ADAPTER_WEIGHTS}; pickled weights are not loaded")
    kind = str(config.get("peft_type"))
    if kind != "LORA":
        raise _unusable(f"{uri}: its adapter is of type {kind[:40]}, and LORA is what is served")
    base, rank = config.get("base_model_name_or_path"), config.get("r")
    return ArtifactRef(
        uri=uri,
        kind="Adapter",
        architecture="Seq2SeqLM" if config.get("task_type") == "SEQ_2_SEQ_LM" else "CausalLM",
        lora_rank=rank if isinstance(rank, int) else None,
        use_dora=True if config.get("use_dora") is True else None,
        needs_peft=bool(peft_only(config)) or None,
        base_model=base if isinstance(base, str) and _HUB_NAME.fullmatch(base) else None,
    )


def _parsed(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise _unusable(f"{what} cannot be read")
    return found


def _is_weights(name: str) -> bool:
    return name.endswith(WEIGHTS) and "/" not in name and name != ADAPTER_WEIGHTS


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _unusable(said: str) -> Refused:
    return Refused(Reason.MODEL_UNUSABLE, f"spec.adopt: {said}")
