"""The demo from top to bottom: `python -m demo --help`, or `make demo`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo import quickstart, result
from demo.carrier import Carrier
from demo.console import Console, DemoError
from demo.follow import follow_deployment, follow_job
from demo.kubectl import Kubectl, Manifest
from demo.quickstart import CHART, FOLDER, NAMESPACE, OPERATOR_NAMESPACE, OUT, RELEASE
from demo.target import Current, Images, Target, ThrowAway

INSTALL_TIMEOUT = "5m"

_KILLED = (
    "Does another helm work on it now? Else one was killed in the middle: run `make demo-down`, then `make demo`; or "
    f"keep what is there with `helm --namespace {OPERATOR_NAMESPACE} rollback {RELEASE}`."
)
"""Of a release that helm holds for unfinished."""

SPLITS = ("train", "validation", "test")
AtMost = Mapping[str, int]
"""Rows by the split's name; no entry: all."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo or remove it; return the exit code."""
    options = _parser().parse_args(arguments)
    console = Console()
    given = {"operator": options.operator_image, "trainer": options.trainer_image}
    try:
        target: Target
        if options.cluster == "current":
            target = Current(registry=options.registry, given=given)
        else:
            target = ThrowAway(options.name)
        if options.down:
            target.remove(console)
        else:
            play(target, console, dict(options.rows))
    except DemoError as error:
        console.line(f"\nerror: {error}")
        if error.next_step:
            console.line(f"next:  {error.next_step}")
        return 1
    except KeyboardInterrupt:
        console.line("\ninterrupted; `make demo` continues from here, `make demo-down` removes what runs")
        return 130
    return 0


def play(target: Target, console: Console, at_most: AtMost) -> None:
    """Everything in order.

    Args:
        target: the cluster.
        console: where it is told.
        at_most: see `carry_data`.

    Raises:
        DemoError: a step failed.
    """
    images = target.prepare(console)  # what is refused is refused before anything is fetched for it
    files = quickstart.prepare(quickstart.fetch(console))
    kubectl = target.kubectl
    console.step("namespace and volumes of examples/quickstart")
    kubectl.apply(*kubectl.manifests(FOLDER / "namespace.yaml"))
    kubectl.apply(*kubectl.manifests(FOLDER / "volumes.yaml"))
    pod = quickstart.with_image(kubectl.manifests(FOLDER / "carrier.yaml")[0], images.trainer)
    with Carrier(kubectl, pod) as carrier:
        caching = start_model_cache(kubectl, carrier, files, images, console)
        install(target, images, console)
        connection = kubectl.manifests(FOLDER / "connection.yaml")[0]
        kubectl.apply(quickstart.with_image(connection, images.trainer))
        job, runs_already = quickstart.next_job(kubectl)
        carry_data(carrier, files, job, console, at_most)
        wait_for_model_cache(kubectl, caching, console)
        finished = tune(kubectl, job, console, runs_already=runs_already)
        curve = copy_curve(carrier, finished)
    deployed = follow_deployment(
        kubectl, console, NAMESPACE, finished["spec"]["modelRef"]["name"], finished["status"]["modelVersion"]
    )
    tell(target, console, finished, deployed, files, curve)


def install(target: Target, images: Images, console: Console) -> None:
    """Install the chart as a user would, or upgrade what is there, whose other values stay as they are."""
    console.step(f"helm upgrade --install {RELEASE} (namespace {OPERATOR_NAMESPACE})")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE, "labels": labels}}
    target.kubectl.apply(namespace)
    try:
        target.helm(
            "upgrade", "--install", RELEASE, str(CHART), "--namespace", OPERATOR_NAMESPACE,
            "--reset-then-reuse-values", *quickstart.image_values(images.operator),
            "--wait", "--timeout", INSTALL_TIMEOUT,
        )  # fmt: skip
    except DemoError as error:
        if "another operation" not in str(error):
            raise
        raise DemoError(str(error), _KILLED) from error


def start_model_cache(
    kubectl: Kubectl, carrier: Carrier, files: Path, images: Images, console: Console
) -> Manifest | None:
    """Carry the model in and start the example Job that puts it into the cache; None where the cache has it already.

    It needs no operator, so it works while the chart is installed.
    """
    if carrier.has(f"/model-cache/{quickstart.MODEL}/manifest.json"):
        console.step(f"{quickstart.MODEL} is in the model cache")
        return None
    model = next(files.glob("*.gguf"))
    carrier.send(model.read_bytes(), f"/model-cache/.incoming/{model.name}")
    console.step(f"carried {model.name} into the volume model-cache")
    job = quickstart.with_image(kubectl.manifests(quickstart.CACHE_JOB)[0], images.trainer)
    kubectl.run("--namespace", NAMESPACE, "delete", "job", job["metadata"]["name"], "--ignore-not-found")
    kubectl.apply(job)
    console.step("finetune-trainer cache … --from-gguf (examples/model-cache/from-gguf.yaml)")
    return job


def carry_data(carrier: Carrier, files: Path, job: Manifest, console: Console, at_most: AtMost) -> None:
    """Bring the dataset into its volume, as into a site without a network: at most so many rows of a split."""
    for name in quickstart.data_files(job):
        rows = (files / name).read_bytes().splitlines(keepends=True)
        if carrier.send(b"".join(rows[: at_most.get(Path(name).stem)]), f"/data/{name}"):
            console.step(f"carried {name} into the volume data")


def wait_for_model_cache(kubectl: Kubectl, job: Manifest | None, console: Console) -> None:
    """Wait for the Job that fills the cache.

    Raises:
        DemoError: it failed, with the end of its log.
    """
    if job is None:
        return
    name = job["metadata"]["name"]
    for found in kubectl.follow("jobs.batch", name, NAMESPACE):
        ended = {c["type"] for c in (found or {}).get("status", {}).get("conditions", []) if c["status"] == "True"}
        if "Complete" in ended:
            console.step(f"{quickstart.MODEL} is in the model cache")
            return
        if "Failed" in ended:
            log = kubectl.run("--namespace", NAMESPACE, "logs", f"job/{name}", "--tail=5").strip()
            raise DemoError(
                f"the model cache was not filled: {log}", f"Look at it: kubectl -n {NAMESPACE} describe job {name}"
            )


def tune(kubectl: Kubectl, job: Manifest, console: Console, *, runs_already: bool) -> Manifest:
    """Apply the FineTuneJob and show it until it ends; return it as it ended."""
    name = job["metadata"]["name"]
    if runs_already:
        console.step(f"job {name} of an earlier demo still runs")
    else:
        console.step(f"kubectl apply -f examples/quickstart/finetunejob.yaml (as {name})")
        kubectl.apply(job)
    return follow_job(kubectl, console, NAMESPACE, name)


def copy_curve(carrier: Carrier, job: Manifest) -> Path:
    """Copy the drawn loss curve out of the artifact's volume."""
    uri = str(job["status"]["result"]["artifact"]["uri"])
    target = OUT / f"{job['metadata']['name']}-loss.svg"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(carrier.read(f"/{uri.removeprefix('pvc://')}/loss.svg"), encoding="utf-8")
    return target


def tell(target: Target, console: Console, job: Manifest, deployed: Manifest, files: Path, curve: Path) -> None:
    """The result: what kubectl shows, the comparison, the curve, and one answer of the model."""
    kubectl = target.kubectl
    console.line()
    kinds = ("finetunejobs", "finetunedmodels", "modeldeployments")
    for kind in kinds:
        console.line(kubectl.run("get", kind, "--namespace", NAMESPACE))
    result.show_evaluation(console, job)
    console.line(f"\nLoss, drawn in {os.path.relpath(curve)}:")
    result.show_curves(console, job)
    endpoint = deployed["status"]["endpoint"]
    messages = quickstart.question(files)
    console.line(f"\nThe model answers at {endpoint['url']} inside the cluster, as model {endpoint['model']!r}.")
    address = target.reach(NAMESPACE, deployed["metadata"]["name"])
    if address is None:
        with result.forwarded(kubectl, NAMESPACE, deployed["metadata"]["name"]) as forwarded:
            answer = result.ask(forwarded, endpoint["model"], messages)
        address = "http://127.0.0.1:8080"
        console.line(f"From here: kubectl -n {NAMESPACE} port-forward service/{deployed['metadata']['name']} 8080:80 &")
    else:
        answer = result.ask(address, endpoint["model"], messages)
    console.line(result.curl(address, endpoint["model"], messages))
    console.line(f"\n  asked:    {messages[-1]['content']}\n  answered: {answer}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("--cluster", choices=["throw-away", "current"], default="throw-away", help="where to play")
    parser.add_argument("--name", default="finetune", help="name of the throw-away cluster (default: %(default)s)")
    parser.add_argument("--registry", default="", help="with --cluster current: push the images there")
    parser.add_argument("--operator-image", default="", help="with --cluster current: an image that it can pull")
    parser.add_argument("--trainer-image", default="", help="with --cluster current: an image that it can pull")
    parser.add_argument(
        "--rows", nargs="+", type=_split_rows, default=[], metavar="SPLIT=ROWS",
        help="take at most so many rows of train, validation or test: sooner, and not as good",
    )  # fmt: skip
    parser.add_argument("--down", action="store_true", help="remove what the demo started")
    return parser


def _split_rows(text: str) -> tuple[str, int]:
    split, _, rows = text.partition("=")
    if split not in SPLITS or not rows.isdecimal() or int(rows) == 0:
        raise argparse.ArgumentTypeError(
            f"{text!r}: write {', '.join(SPLITS)} with a number of rows, such as train=100"
        )
    return split, int(rows)


if __name__ == "__main__":
    sys.exit(main())
