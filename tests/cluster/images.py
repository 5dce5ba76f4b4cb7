"""Builds the project's images without a container engine, tagged by the hash of their inputs.

`build_images()` returns the references for pods; a warm run builds and pushes nothing. The base image is a minimal
Debian made by mmdebstrap, so no public registry is needed. Layers are in buildah's own store below the cache and in
the registry's; older images of this project are pruned from both.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import packages, registry, shell
from tests.cluster.console import say
from tests.cluster.node import IMAGE_HOST
from tests.cluster.paths import REPOSITORY, cache_dir, cache_root, lock, lock_if_free

SUITE = "bookworm"
BASE_PACKAGES = "python3,python3-venv,ca-certificates"
KEPT_IMAGES = 2
"""Images kept per name: the latest, and the one before it for switching between two branches."""
KEPT_SECONDS = 1800
"""Younger ones are kept as well: another test run may be about to start pods with them."""
IN_USE = "image-stores"
"""The lock that builds hold shared and the cleanup exclusively."""

PIP_SETTINGS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES")
CA_BUNDLES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
SYSTEM_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Image:
    """One target of one Dockerfile, and the files of the repository that decide its content."""

    repository: str
    dockerfile: str
    inputs: tuple[str, ...]
    target: str | None = None


IMAGES = {
    "operator": Image(
        "finetune-operator", "Dockerfile", ("locks/operator.txt", "operator/finetune_api", "operator/finetune_operator")
    ),
    "check": Image(
        "finetune-trainer-check", "trainer_image/Dockerfile",
        ("trainer_image/locks/check.txt", "operator/finetune_api", "trainer_image/finetune_trainer"), "check",
    ),
    "trainer": Image(
        "finetune-trainer", "trainer_image/Dockerfile",
        ("trainer_image/locks/full.txt", "operator/finetune_api", "trainer_image/finetune_trainer"), "full",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class BuiltImages:
    """References that pods on a throw-away cluster can name."""

    operator: str
    check: str
    trainer: str


def build_images() -> BuiltImages:
    """Build the operator's and the trainer's images if they changed, and push them to the registry.

    Raises:
        ClusterError: a build failed, with the end of its log.
    """
    return BuiltImages(**build_all(IMAGES))


def build_all(names: Iterable[str]) -> dict[str, str]:
    """Build those of `IMAGES` that the registry lacks; return their references by name.

    All are built before the first is pushed: on a new machine the registry is still being compiled meanwhile, and image
    builds use mostly one processor.
    """
    wanted = {name: (IMAGES[name], _tag(IMAGES[name])) for name in names}
    absent = [(image, tag) for image, tag in wanted.values() if not registry.has(image.repository, tag)]
    if absent:
        packages.need_root("building images")
        packages.ensure(packages.IMAGES)
        _tidy()
    for step in (_ensure_in_store, _ensure_in_registry):
        for image, tag in absent:
            with lock(f"image-{image.repository}"), lock(IN_USE, shared=True):
                step(image, tag)
    return {name: f"{IMAGE_HOST}/{image.repository}:{tag}" for name, (image, tag) in wanted.items()}


def publish(name: str, prefix: str) -> str:
    """Build one of `IMAGES` and push it to another registry, with the user's login; return its reference.

    Args:
        name: key of `IMAGES`.
        prefix: registry and path, such as registry.example.com/team. No TLS is used for one on this machine.

    Raises:
        ClusterError: the build or the push failed, with the end of its log.
    """
    image = IMAGES[name]
    tag = _tag(image)
    local, remote = f"localhost/{image.repository}:{tag}", f"{prefix}/{image.repository}:{tag}"
    packages.need_root("building images")
    packages.ensure(packages.IMAGES)
    with lock(f"image-{image.repository}"), lock(IN_USE, shared=True):
        _ensure_in_store(image, tag)
        plain = prefix.partition("/")[0].partition(":")[0] in {"localhost", "127.0.0.1"}
        command = _buildah("push", "--quiet", f"--tls-verify={str(not plain).lower()}", local, f"docker://{remote}")
        shell.logged(command, _log(f"{image.repository}-publish"), env=_environment())
    return remote


def base_image() -> str:
    """The reference of the base image: Debian with Python, for test pods that need no more."""
    tag = _base_tag()
    if not registry.has("base", tag):
        packages.ensure(packages.IMAGES)
        with lock(IN_USE, shared=True):
            _base_in_store()
            _push("base", tag)
    return f"{IMAGE_HOST}/base:{tag}"


def _base_tag() -> str:
    return hashlib.sha256(f"{SUITE} {BASE_PACKAGES}".encode()).hexdigest()[:12]


def _base_in_store() -> str:
    """Create the base image in buildah's store if absent; returns its name there."""
    name = f"localhost/base:{_base_tag()}"
    with lock("image-base"):
        if not shell.succeeds(*_buildah("inspect", "--type", "image", name)):
            say(f"making the base image: Debian {SUITE} with {BASE_PACKAGES}")
            _make_base(name)
    return name


def _make_base(name: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache_dir("buildah", "tmp")) as folder:
        context = Path(folder)
        command = ["mmdebstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", SUITE, str(context / "root.tar")]
        shell.logged(command, _log("base"))
        (context / "Dockerfile").write_text("FROM scratch\nADD root.tar /\nENV LANG=C.UTF-8\n")
        shell.logged(_buildah("bud", "--tag", name, folder), _log("base"), env=_environment())


def _ensure_in_store(image: Image, tag: str) -> None:
    """Build an image unless buildah's store has it."""
    name = f"localhost/{image.repository}:{tag}"
    if shell.succeeds(*_buildah("inspect", "--type", "image", name)):
        return
    base = _base_in_store()
    say(f"building image {image.repository}:{tag} (log: {_log(image.repository)})")
    with _mounts() as mounts:
        target = ["--target", image.target] if image.target else []
        command = _buildah(
            "bud", "--isolation", "chroot", "--layers", "--build-arg", f"BASE_IMAGE={base}", *mounts, *target,
            "--tag", name, "--file", image.dockerfile, ".",
        )  # fmt: skip
        shell.logged(command, _log(image.repository), env=_environment(), cwd=REPOSITORY)


def _ensure_in_registry(image: Image, tag: str) -> None:
    """Push an image unless the registry has it by now."""
    if not registry.has(image.repository, tag):
        _push(image.repository, tag)


def _push(repository: str, tag: str) -> None:
    """Push an image to the registry; existing layers are not even read.

    zstd takes a quarter of gzip's time, both here and on the node.
    """
    say(f"pushing {repository}:{tag} to the registry")
    with registry.served_for_build() as address:
        command = _buildah(
            "push", "--quiet", "--tls-verify=false", "--format", "oci", "--compression-format", "zstd",
            f"localhost/{repository}:{tag}", f"docker://{address}/{repository}:{tag}",
        )  # fmt: skip
        shell.logged(command, _log(f"{repository}-push"), env=_environment())


@contextmanager
def _mounts() -> Iterator[list[str]]:
    """Mounts of a build that no image keeps: the machine's certificates and, if set, pip's settings."""
    bundle = next((os.environ[name] for name in CA_BUNDLES if os.environ.get(name)), SYSTEM_CA_BUNDLE)
    settings = {name.removeprefix("PIP_").lower().replace("_", "-"): os.environ.get(name) for name in PIP_SETTINGS}
    lines = ["[global]", f"cert = {SYSTEM_CA_BUNDLE}"]
    lines += [f"{name.removeprefix('default-')} = {value}" for name, value in settings.items() if value]
    with tempfile.NamedTemporaryFile("w", suffix=".conf", dir=cache_dir("buildah", "tmp")) as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        Path(file.name).chmod(0o644)
        yield ["--volume", f"{bundle}:{SYSTEM_CA_BUNDLE}:ro", "--volume", f"{file.name}:/etc/pip.conf:ro"]


def _tag(image: Image) -> str:
    """Hash of base image, Dockerfile and inputs."""
    digest = hashlib.sha256(f"{_base_tag()} {image.target}".encode())
    for path in _files([image.dockerfile, ".dockerignore", *image.inputs]):
        digest.update(f"{path.relative_to(REPOSITORY)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _files(names: list[str]) -> Iterator[Path]:
    for name in names:
        path = REPOSITORY / name
        if path.is_file():
            yield path
            continue
        for file in sorted(path.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".pyc":
                yield file


def _tidy() -> None:
    """Remove leftovers of interrupted builds and unneeded images, unless a build is running."""
    with lock_if_free(IN_USE) as alone:
        if not alone:
            return
        shell.run(*_buildah("rm", "--all"))
        stale = [(image.repository, tag) for image in IMAGES.values() for tag in _stale_tags(image.repository)]
        for repository, tag in stale:
            shell.succeeds(*_buildah("rmi", "--force", f"localhost/{repository}:{tag}"))  # it may be gone already
            registry.remove(repository, tag)
        if stale:
            shell.run(*_buildah("rmi", "--prune"))
            registry.collect_garbage()


def _stale_tags(repository: str) -> list[str]:
    pushed = registry.tags(repository)
    return [tag for tag in list(pushed)[:-KEPT_IMAGES] if time.time() - pushed[tag] > KEPT_SECONDS]


def _buildah(*arguments: str) -> list[str]:
    """A buildah command on the project's own store: the user's other images are neither seen nor touched.

    It runs in its own mount namespace: its mounts end with it, even when it is killed, and its record of the registry's
    content is in the cache, too.
    """
    own = cache_root() / "buildah"
    memory, run = cache_dir("buildah", "memory"), cache_dir("buildah", "run")
    setup = f"mount --bind '{memory}' /var/lib/containers; mount -t tmpfs tmpfs '{run}'"
    return [
        "unshare", "--mount", "sh", "-ec", f'mkdir -p /var/lib/containers; {setup}; exec "$@"', "sh",
        "buildah", "--root", str(own / "store"), "--runroot", str(run), "--storage-driver", "overlay", *arguments,
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    """Set TMPDIR, to which buildah writes whole layers, to the cache's disk, where we clean up."""
    return {**os.environ, "TMPDIR": str(cache_dir("buildah", "tmp"))}


def _log(name: str) -> Path:
    return cache_dir("logs") / f"image-{name}.log"
