"""URIs of datasets and artifacts: one parser for the operator (which mounts) and the trainer (which reads)."""

import re
from dataclasses import dataclass
from functools import lru_cache
from posixpath import basename
from urllib.parse import SplitResult, unquote, urlsplit

from finetune_api.hosts import HOST
from finetune_api.names import CLAIMS_PATH, CONFIG_MAPS_PATH

DATASET_SCHEMES = ("pvc", "configmap", "s3", "gs", "abfs", "hf", "https")
OBJECT_SHAPE = "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
"""Name of a claim or a ConfigMap, as a regular expression."""

KEY_SHAPE = "[.]?[-_a-zA-Z0-9][-._a-zA-Z0-9]*"
"""Key of a Secret or a ConfigMap, as a regular expression: neither `.` nor `..`, with which pods are rejected."""

ARTIFACT_SHAPES = {
    "pvc": OBJECT_SHAPE,
    "s3": "[a-z0-9][-a-z0-9.]{1,61}[a-z0-9]",
    "gs": "[a-z0-9][-_a-z0-9.]{1,220}[a-z0-9]",
    "abfs": "[a-z0-9][-a-z0-9]{1,61}[a-z0-9]@[a-z0-9]{3,24}[.]dfs[.][-a-z0-9.]+",
}
"""What is between scheme and path in the URI of an artifact, as regular expressions."""

ARTIFACT_PLACE = f"^({'|'.join(f'{scheme}://{shape}' for scheme, shape in ARTIFACT_SHAPES.items())})(/.*)?$"
"""The URI of an artifact, with its path, as a regular expression."""

ARTIFACT_HELP = (
    "write pvc://CLAIM, s3://BUCKET, gs://BUCKET or abfs://CONTAINER@ACCOUNT.dfs.core.windows.net, "
    "with or without /PREFIX; all names are in lower case, and a bucket's has at least 3 characters"
)
NO_QUERY_HELP = "a folder has neither '?' nor '#': write the path without them"
LOCAL_SCHEME = "file"
SITE_HELP = (
    "write pvc://CLAIM/PATH, configmap://NAME/KEY, s3://BUCKET/KEY, gs://BUCKET/KEY, abfs://CONTAINER/PATH or "
    "https://HOST/PATH"
)
"""Places for a dataset on a site without access to a hub."""

SCHEME_HELP = SITE_HELP.replace(" or ", ", hf://datasets/OWNER/NAME/PATH or ")
HUB_HELP = (
    "write hf://datasets/OWNER/NAME/PATH, where PATH is one file of the repository, such as "
    "data/train-00000-of-00001.parquet"
)


HUB_PLACE = "datasets/[-._A-Za-z0-9]+/[-._A-Za-z0-9]+(@[^/]+)?/.+"
"""What follows `hf://` for a file, optionally of a revision, as a regular expression: names have no spaces."""

PAGE_OF_A_HUB = "^https://(www[.])?(huggingface|hf)[.]co/datasets/[^/]+/[^/?#]+/?($|[?#]|(tree|blob|viewer)/)"
"""A dataset's page as shown in a browser, as a regular expression; its files are below `resolve`."""

PAGE_HELP = f"this is a page of a hub, not a file: {HUB_HELP}"

WEB_PLACE = f"^https://([^/]*@)?{HOST}/"
"""The beginning of an https:// dataset, as a regular expression; credentials are rejected with another message."""

WEB_HELP = "this is not a valid address: write https://HOST/PATH or https://HOST:PORT/PATH, with a port of 1 to 65535"

SIGNED = "^https://.*[?&](?i:sig|signature|x-(amz|goog|oss)-signature|([a-z]+_)?token|api_?key)="
"""A URL with a signature or a key in its query, as a regular expression: all who can read the job could use it."""

SIGNED_HELP = (
    "the uri holds a signature or a key, which everybody who may read the job could use; name the file as "
    "abfs://, s3:// or gs://, put the key or the SAS token into a Secret, and name that in spec.dataset.secretRef"
)

PLACEHOLDER = "<[^<>]*>|[$][{(]|[{][{]"
"""A placeholder that was not replaced: `<bucket>`, `${BUCKET}`, `{{ bucket }}`."""

PLACEHOLDER_HELP = "write what the placeholder stands for, without the brackets around it"

_OTHER_NAMES = {
    "abfss": "abfs", "az": "abfs", "adl": "abfs", "wasb": "abfs", "wasbs": "abfs", "s3a": "s3", "s3n": "s3",
    "gcs": "gs", "azure": "abfs", "http": "https", "huggingface": "hf", "claim": "pvc", "cm": "configmap",
    "minio": "s3",
}  # fmt: skip
"""Other names of the schemes."""

_WITHOUT_MARK = re.compile(r"(?P<scheme>[A-Za-z0-9]+)(//|:(?!//)/?)(?=[^/\\])")
"""A scheme with an incomplete separator: `s3//bucket`, `s3:/bucket`, `s3:bucket`."""

_PAGE = re.compile(r"(www\.)?(huggingface|hf)\.co/")
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")

AROUND = (
    " \t'\"`\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{SINGLE LOW-9 QUOTATION MARK}"
    "\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE LOW-9 QUOTATION MARK}"
)
"""What word processors and copying leave around a URI."""

_ENDS = "".join(rf"\x{{{ord(mark):X}}}" for mark in AROUND)
ODD_CHARACTERS = rf"\p{{C}}|[^\P{{Z}} ]|[{_ENDS}]$"
"""Invisible characters, and leftovers at the end of a copied text, as a regular expression of the API server."""

ODD_CHARACTERS_HELP = (
    "write it without a line break, a quotation mark or a space at its end or another character that is not seen"
)

STEPS_UP = "(^|/)[.][.](/|$)"
"""A `..` segment, as a regular expression."""


class UriError(ValueError):
    """A URI that cannot be used; the message says what to write instead."""


@dataclass(frozen=True)
class Uri:
    """A parsed dataset or artifact URI."""

    text: str
    scheme: str
    root: str
    """The claim, ConfigMap, bucket or host."""
    path: str
    """What follows the root, without a leading slash."""

    @property
    def is_claim(self) -> bool:
        """Whether it is on a volume, which pods mount; otherwise it is in a store, from which they download."""
        return self.scheme == "pvc"

    @property
    def file_name(self) -> str:
        """The name for messages: only the last part, so that no credentials in a URI are printed."""
        return basename(self.path.rstrip("/")) or self.root

    def mounted_path(self) -> str | None:
        """Where a pod finds it: an absolute path for volumes and local files, None for what is downloaded."""
        if self.scheme == "pvc":
            return f"{CLAIMS_PATH}/{self.root}/{self.path}"
        if self.scheme == "configmap":
            return f"{CONFIG_MAPS_PATH}/{self.root}/{self.path}"
        return f"/{self.path}" if self.scheme == LOCAL_SCHEME else None


def parse_uri(text: str, *, allow_local: bool = False) -> Uri:
    """Parse a dataset URI. For a local file it is percent-decoded (RFC 8089), as `Path.as_uri` writes it.

    Raises:
        UriError: unknown scheme, no path, a `..` segment, or credentials inside the URI.
    """
    split = _split(text)
    if meant := incomplete_scheme(text):
        raise UriError(meant)
    allowed = SCHEME_HELP + (" or file:///PATH" if allow_local else "")
    schemes = (*DATASET_SCHEMES, LOCAL_SCHEME) if allow_local else DATASET_SCHEMES
    if split.scheme not in schemes or "://" not in text:
        raise UriError(
            f"{split.scheme or 'no scheme'}: not a place that a dataset is read from{_hint(split)}; {allowed}"
        )
    if not text.startswith(f"{split.scheme}://"):
        raise UriError(f"the scheme is in lower case: write {split.scheme}://")
    if "@" in split.netloc and split.scheme != "abfs":
        raise UriError("the uri holds credentials; put them into a Secret and name it in spec.dataset.secretRef")
    path = _path(text, split)
    if not path or not (split.netloc or split.scheme == LOCAL_SCHEME):
        raise UriError(f"the uri names no {'file' if split.netloc else 'place'}; {allowed}")
    if re.search(SIGNED, text):
        raise UriError(SIGNED_HELP)
    if split.scheme != LOCAL_SCHEME and re.search(PLACEHOLDER, text):
        raise UriError(PLACEHOLDER_HELP)
    uri = Uri(text=text, scheme=split.scheme, root=split.netloc, path=path)
    _require_form(uri)
    return uri


def incomplete_scheme(text: str) -> str | None:
    """What is wrong if only the `://` is incomplete, or it is a Windows path; the text itself is never repeated."""
    if _DRIVE.match(text):
        return "a Windows path does not exist in a pod: copy the file to a volume, and write pvc://CLAIM/PATH"
    if _PAGE.match(text):
        return PAGE_HELP
    found = _WITHOUT_MARK.match(text)
    scheme = found["scheme"].lower() if found else ""
    scheme = _OTHER_NAMES.get(scheme, scheme)
    return f"write {scheme}://, with a colon and two slashes" if scheme in DATASET_SCHEMES else None


def _path(text: str, split: SplitResult) -> str:
    """The part after the place, as its scheme defines it.

    Raises:
        UriError: an invisible character, or a `..` segment.
    """
    path = text.split("://", 1)[1].partition("/")[2]
    if split.scheme == "https":
        path = split.path.lstrip("/")
    elif split.scheme == LOCAL_SCHEME:
        path = unquote(path)
    if not path.isprintable():
        raise UriError("the uri has a character that is not seen, such as a line break; write it without")
    if ".." in path.split("/"):
        raise UriError("the uri has a '..' segment; write the path without it")
    return path


def _hint(split: SplitResult) -> str:
    """A hint for a scheme that is not supported."""
    if split.scheme == LOCAL_SCHEME:
        return " (file:// works in `finetune-trainer check` and `run` only)"
    own = _OTHER_NAMES.get(split.scheme)
    return f" (write {own}://)" if own else ""


def _require_form(uri: Uri) -> None:
    """Require the form that its scheme defines.

    Raises:
        UriError: it has another form.
    """
    objects = {"pvc": "claim", "configmap": "ConfigMap"}
    if uri.scheme in objects and not re.fullmatch(OBJECT_SHAPE, uri.root):
        raise UriError(f"this is not the name of a {objects[uri.scheme]}; write a-z, 0-9, '-' and '.' only")
    if uri.scheme == "configmap" and not re.fullmatch(KEY_SHAPE, uri.path):
        raise UriError("a ConfigMap key has no '/', only letters, digits, -, _ and .; write configmap://NAME/KEY")
    if uri.scheme == "https" and not re.match(WEB_PLACE, uri.text):
        raise UriError(WEB_HELP)
    if re.match(PAGE_OF_A_HUB, uri.text):
        raise UriError(PAGE_HELP)
    if uri.scheme == "hf" and not re.fullmatch(HUB_PLACE, f"{uri.root}/{uri.path}"):
        raise UriError(HUB_HELP)


@lru_cache(maxsize=256)
def parse_artifact_uri(text: str) -> Uri:
    """Parse where tuned weights are kept: a claim or a bucket, with or without a prefix. Azure URIs name the account.

    Raises:
        UriError: another scheme, credentials inside the URI, a `..` segment, or a `?` or `#`.
    """
    split = _split(text)
    path = split.path.strip("/")
    shape = ARTIFACT_SHAPES.get(split.scheme)
    if shape is not None and "@" in split.netloc and split.scheme != "abfs":
        raise UriError("the uri holds credentials; put them into a Secret and name it in artifacts.secretRef")
    if shape is None or not re.fullmatch(shape, split.netloc):
        raise UriError(ARTIFACT_HELP)
    if ".." in path.split("/"):
        raise UriError("the uri has a '..' segment; write the path without it")
    if re.search("[?#]", text):
        raise UriError(NO_QUERY_HELP)
    return Uri(text=text, scheme=split.scheme, root=split.netloc, path=path)


def artifact_place(text: str | None) -> Uri | None:
    """Where tuned weights are kept; None if it is not given, or what is given is not valid."""
    try:
        return parse_artifact_uri(text) if text is not None else None
    except UriError:
        return None


def _split(text: str) -> SplitResult:
    if text != text.strip(AROUND):
        raise UriError("the uri begins or ends with a space or a quotation mark; write it without")
    if not text.isprintable():
        raise UriError("the uri has a character that is not seen, such as a line break; write it without")
    try:
        return urlsplit(text)
    except ValueError as error:  # a bracket that is not closed, as in an IPv6 address
        raise UriError(f"the uri cannot be read; {SCHEME_HELP}") from error
