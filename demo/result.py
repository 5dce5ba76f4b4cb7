"""What came out: base and tuned model side by side, the loss curve, and one question to the model that answers now."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from demo.console import Console, DemoError
from demo.kubectl import Kubectl, Manifest

CURVE_CELLS = 48
BLOCKS = "▁▂▃▄▅▆▇█"
ANSWER_TIMEOUT = 120
ANSWER_TOKENS = 8


def show_evaluation(console: Console, job: Manifest) -> None:
    """Accuracy on the rows that were held out, of the base model and of the tuned one."""
    evaluation = job["status"].get("evaluation")
    if not evaluation:
        console.line("The job has no test set, so nothing was measured.")
        return
    console.line(f"Exact answers on {evaluation['rows']} held-out rows:")
    rows = [("base model", evaluation["baselines"].get("zeroShot")), ("tuned model", evaluation["tuned"])]
    for label, scores in rows:
        if scores and scores.get("exactMatch") is not None:
            share = scores["exactMatch"]
            console.line(f"  {label:12s} {share:6.1%}  {'█' * round(share * 40)}")
    console.line(f"  verdict: {evaluation['verdict']}")


def show_curves(console: Console, job: Manifest) -> None:
    """Both loss curves as one line each."""
    for name, points in (job["status"].get("loss") or {}).items():
        if points:
            values = [point["value"] for point in points]
            first, last = points[0], points[-1]
            console.line(
                f"  {name:10s} {first['value']:.3f} {sparkline(values)} {last['value']:.3f}"
                f"   (steps {first['step']} to {last['step']})"
            )


def sparkline(values: Sequence[float], cells: int = CURVE_CELLS) -> str:
    """A curve in one line of blocks, from its lowest to its highest value."""
    picked = (
        [values[round(i * (len(values) - 1) / (cells - 1))] for i in range(cells)] if len(values) > cells else values
    )
    low, high = min(picked), max(picked)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0
    return "".join(BLOCKS[round((value - low) * scale)] for value in picked)


def ask(base_url: str, model: str, messages: list[dict[str, str]]) -> str:
    """Ask an OpenAI-compatible endpoint.

    Raises:
        DemoError: it does not answer.
    """
    body = {"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    request = urllib.request.Request(
        f"{base_url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT) as response:
            answer = json.load(response)
    except OSError as error:
        raise DemoError(
            f"{base_url} does not answer: {error}", "Look at it: kubectl -n quickstart get md,pods"
        ) from error
    return str(answer["choices"][0]["message"]["content"]).strip()


def curl(base_url: str, model: str, messages: list[dict[str, str]]) -> str:
    """The same question as a command to paste."""
    body = json.dumps({"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "temperature": 0})
    quoted = body.replace("'", "'\\''")
    return f"curl -s {base_url}/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '{quoted}'"


@contextmanager
def forwarded(kubectl: Kubectl, namespace: str, service: str) -> Iterator[str]:
    """A Service of the cluster at an address of this machine, for as long as the block runs.

    Raises:
        DemoError: kubectl cannot forward to it.
    """
    command = kubectl.command("--namespace", namespace, "port-forward", f"service/{service}", ":80")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            match = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            if match is None:
                process.kill()
                raise DemoError(f"kubectl port-forward: {process.stderr.read().strip()}")
            yield f"http://127.0.0.1:{match.group(1)}"
        finally:
            process.kill()
