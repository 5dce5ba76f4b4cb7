"""Clients for the kinds of object stores: fsspec's filesystems, with credentials from the environment.

The differences between the stores are options of their filesystems, set here.
"""

import functools
import json
import logging
import math
import os
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from finetune_api.names import ARTIFACTS_PREFIX, DATA_PREFIX
from finetune_api.reasons import Reason
from finetune_api.uris import Uri
from finetune_trainer.errors import TrainerError
from finetune_trainer.storage.store_errors import NoTokenError

if TYPE_CHECKING:
    from google.oauth2.service_account import Credentials

GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS_JSON"
"""Variable with a service account's key, as issued by Google, since an environment cannot contain files."""

PROXIES = frozenset({
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
})  # fmt: skip

_PART = 16 * 1024 * 1024  # bytes; _AT_ONCE parts are in memory
_AT_ONCE = 4
_MOST_PARTS = 10_000  # of an object in S3
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_DEFAULT_REGION = "us-east-1"
"""AWS's default region; it redirects to a bucket's own region."""

_GOOGLE = "https://storage.googleapis.com"
_GOOGLE_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


@dataclass(frozen=True)
class Client:
    """A store's fsspec filesystem, and options that differ between stores.

    With `file_options` and `object_options` it refuses parts that were corrupted on the way.
    """

    files: Any
    bucket: str
    """Prefix of paths."""
    file_options: Callable[[int], dict[str, Any]]
    """Options for uploading a file of this size in bytes."""
    object_options: dict[str, Any] = field(default_factory=dict)
    """Options for uploading from memory."""
    no_overwrite: dict[str, Any] = field(default_factory=dict)
    """Options for not replacing an existing object, if supported: raises FileExistsError instead."""


def connect(uri: Uri, endpoint: str | None) -> Client:
    """The client for the store of this URI. Tries some credentials, so that any error of a library may be raised.

    Raises:
        TrainerError: SpecInvalid, the image lacks the store's library; AccessDenied, credentials cannot be parsed.
    """
    take_proxy(os.environ)
    own = _own_keys(os.environ)
    try:
        return _CONNECTORS[uri.scheme](uri, endpoint, own)
    except ImportError as error:
        message = f"artifacts.uri: this image cannot reach {uri.scheme}://: {error.name} is not installed"
        step = "Ask an admin for a trainerImage with the stores extra, or for artifacts on a volume."
        raise TrainerError(Reason.SPEC_INVALID, message, step) from error


def take_proxy(environment: MutableMapping[str, str]) -> None:
    """Use the proxy in the artifacts' Secret, unless the process already has one (from the data's Secret, a policy).

    Pods that serve or prune get it only from that Secret.
    """
    if not PROXIES & environment.keys():
        environment.update({name: value for name, value in _own_keys(environment).items() if name in PROXIES})


def _own_keys(environment: MutableMapping[str, str]) -> dict[str, str]:
    return {
        name.removeprefix(ARTIFACTS_PREFIX): value.strip()  # a value from a file often ends with a line break
        for name, value in environment.items()
        if name.startswith(ARTIFACTS_PREFIX)
    }


def google_files(key: str | None, secret: str, *, default: str | None, endpoint: str | None = None) -> Any:
    """Google Cloud Storage with the JSON API only.

    fsspec's default for gs:// first looks up each bucket's type by gRPC, which hangs for minutes if only the store's
    own address, or a proxy, can be reached.

    Args:
        key: of a service account, in JSON as issued by Google; None: use `default`.
        secret: the field of the manifest that names the Secret with the key.
        default: gcsfs's name for credentials without a key; None: tries all it knows, finally anonymous access.
        endpoint: of the store. Default: Google's.

    Raises:
        TrainerError: AccessDenied, the key is invalid.
    """
    from gcsfs.core import GCSFileSystem  # type: ignore[import-untyped]

    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it logs tracebacks of errors that it raises
    return GCSFileSystem(
        token=_google_credentials(key, secret) if key else default,
        access="read_write",
        endpoint_url=endpoint,
        session_kwargs={"trust_env": True},  # use the site's proxy
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def _google_credentials(key: str, secret: str) -> "Credentials":
    from google.auth.exceptions import MalformedError
    from google.oauth2.service_account import Credentials

    try:
        made = Credentials.from_service_account_info(json.loads(key), scopes=[_GOOGLE_SCOPE])  # type: ignore[no-untyped-call]
        return cast("Credentials", made)
    except (MalformedError, ValueError, AttributeError, TypeError) as error:
        message = f"{secret}: {GOOGLE_KEY} is not the key of a service account in JSON"
        step = "Put the file that Google gave you for the service account into the Secret, under this name, as it is."
        raise TrainerError(Reason.ACCESS_DENIED, message, step) from error


def _s3(uri: Uri, endpoint: str | None, own: dict[str, str]) -> Client:
    from s3fs import S3FileSystem  # type: ignore[import-untyped]

    region = own.get("AWS_REGION") or (_DEFAULT_REGION if _has_data("AWS_REGION", "AWS_DEFAULT_REGION") else None)
    files = S3FileSystem(
        key=own.get("AWS_ACCESS_KEY_ID"),
        secret=own.get("AWS_SECRET_ACCESS_KEY"),
        token=own.get("AWS_SESSION_TOKEN"),
        endpoint_url=endpoint,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "ignore_configured_endpoint_urls": _has_data("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"),
        },
        default_block_size=_PART,
        max_concurrency=_AT_ONCE,
        use_listings_cache=False,
    )
    return Client(files, uri.root, lambda size: {"chunksize": max(_PART, math.ceil(size / _MOST_PARTS))})


def _has_data(*names: str) -> bool:
    """Whether a variable is from the data's Secret: the place of the data says nothing about that of artifacts."""
    return any(f"{DATA_PREFIX}{name}" in os.environ for name in names)


def _gs(uri: Uri, endpoint: str | None, own: dict[str, str]) -> Client:
    if endpoint is None and _has_data("STORAGE_EMULATOR_HOST"):
        endpoint = _GOOGLE
    files = google_files(own.get(GOOGLE_KEY), "artifacts.secretRef", default="google_default", endpoint=endpoint)
    checked = {"consistency": "md5"}
    return Client(files, uri.root, lambda _size: {"chunksize": _PART, **checked}, checked, {"mode": "create"})


def _abfs(uri: Uri, endpoint: str | None, own: dict[str, str]) -> Client:
    from adlfs import AzureBlobFileSystem  # type: ignore[import-untyped]
    from azure.storage.blob.aio import BlobServiceClient, LinearRetry

    container, _, host = uri.root.partition("@")
    account = host.partition(".")[0]

    class OwnKeys(AzureBlobFileSystem):  # type: ignore[misc]
        """adlfs reads missing credentials from the environment, which has those for the data."""

        def do_connect(self) -> None:
            self.account_url = endpoint or f"https://{host.replace('.dfs.', '.blob.', 1)}"
            self.service_client = BlobServiceClient(
                self.account_url,
                credential=self.credential,
                retry_policy=LinearRetry(backoff=1, retry_total=2),
                connection_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                max_single_put_size=_PART,
                max_block_size=_PART,
            )

    files = OwnKeys(
        account_name=account,
        credential=_azure_credential(account, own),
        max_concurrency=_AT_ONCE,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    checked = {"validate_content": True}
    return Client(files, container, lambda _size: checked, checked, {"mode": "create"})


def azure_files(url: str) -> tuple[Any, str]:
    """Azure Blob Storage with the credentials for the data, and the path of this file in it.

    Does not retry failed tokens, which Azure's library would do four times in one and a half minutes without success.

    Raises:
        ValueError: credentials are missing or cannot be parsed.
    """
    found: tuple[Any, str] = _files_with_one_try().of(url)
    return found


@functools.cache
def _files_with_one_try() -> Any:
    from adlfs import AzureBlobFileSystem
    from azure.core.exceptions import ClientAuthenticationError

    class OneTry:
        """A token source that fails at once: the library retries its own refusals, but not errors of other types."""

        def __init__(self, asked: Any) -> None:
            self._asked = asked
            self.close = asked.close

        async def get_token(self, *scopes: str, **options: Any) -> Any:
            try:
                return await self._asked.get_token(*scopes, **options)
            except ClientAuthenticationError as error:
                raise NoTokenError from error

    class Files(AzureBlobFileSystem):  # type: ignore[misc]
        credential: Any

        @classmethod
        def of(cls, url: str) -> tuple[Any, str]:
            return cls(**cls._get_kwargs_from_urls(url), skip_instance_cache=True), cls._strip_protocol(url)

        def do_connect(self) -> None:
            if hasattr(self.credential, "get_token") and not isinstance(self.credential, OneTry):
                self.credential = OneTry(self.credential)
            super().do_connect()

    return Files


def _azure_credential(account: str, own: dict[str, str]) -> Any:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
    from azure.identity.aio import ClientSecretCredential, DefaultAzureCredential

    if key := own.get("AZURE_STORAGE_ACCOUNT_KEY"):
        return AzureNamedKeyCredential(account, key)
    if token := own.get("AZURE_STORAGE_SAS_TOKEN"):
        return AzureSasCredential(token.removeprefix("?"))
    if client := own.get("AZURE_STORAGE_CLIENT_ID"):
        tenant, secret = own.get("AZURE_STORAGE_TENANT_ID"), own.get("AZURE_STORAGE_CLIENT_SECRET")
        if not tenant or not secret:
            message = "artifacts.secretRef: AZURE_STORAGE_CLIENT_ID needs AZURE_STORAGE_TENANT_ID and _CLIENT_SECRET"
            raise TrainerError(Reason.ACCESS_DENIED, message, "Put all three into the Secret.")
        return ClientSecretCredential(tenant, client, secret)
    return DefaultAzureCredential()


_CONNECTORS: dict[str, Callable[[Uri, str | None, dict[str, str]], Client]] = {"s3": _s3, "gs": _gs, "abfs": _abfs}
