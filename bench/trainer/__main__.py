"""`make bench-trainer`: the trainer beside TRL and transformers' Trainer; writes bench/results/trainer.md.

Contenders take turns, each in a process of its own; of two runs the better counts. What was measured on another machine
is kept as JSON Lines beside the page and stands on it too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.machine import described
from bench.trainer import work

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finetune-operator"
PEAK = 989e12
"""Of an H100 or H200 in dense bfloat16, FLOP per second, by its data sheet."""

MARK = "RESULT "


@dataclass(frozen=True)
class Race:
    """One piece of work, and who does it."""

    shape: str
    lengths: str
    batch: int
    contenders: tuple[tuple[str, ...], ...]

    @property
    def setting(self) -> str:
        """Its name."""
        return f"{self.shape} {self.lengths}"


_BFLOAT16 = ("--precision", "BFloat16")
CPU = (
    Race(
        "135M",
        "ragged-cpu",
        16,
        (("ours",), ("ours", *_BFLOAT16), ("trl-defaults",), ("trl-grouped", *_BFLOAT16), ("trl-packing", *_BFLOAT16)),
    ),
)
_PEERS = (("trl-defaults",), ("trl-grouped",), ("trl-liger",), ("trl-packing",), ("transformers",))
GPU = (
    *(Race(shape, "ragged", 32, (("ours-eager",), ("ours",), *_PEERS)) for shape in ("0.5B", "1.5B", "8B")),
    Race("8B", "fixed", 8, (("ours",), ("ours-eager",), ("trl-liger", "--each", "2"), ("trl-defaults",))),
)


def peers_python() -> Path:
    """The Python of the peers' environment, made first where it is not there."""
    wanted = (HERE / "peers.txt").read_bytes() + Path("locks/dev.txt").read_bytes()
    folder = CACHE / f"bench-trainer-{sha256(wanted).hexdigest()[:12]}"
    if not (folder / "done").is_file():
        tools = subprocess.run(["scripts/python-tools.sh"], check=True, capture_output=True, text=True).stdout.strip()
        uv = Path(tools) / "bin/uv"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
        install: list[str | Path] = [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            folder / "bin/python",
            "-c",
            "locks/dev.txt",
        ]
        subprocess.run([*install, "-r", HERE / "peers.txt", "torch", "transformers", "peft", "accelerate"], check=True)
        (folder / "done").touch()
    return folder / "bin/python"


def run(race: Race, contender: tuple[str, ...], python: Path, *, steps: int, seconds: float) -> dict[str, Any] | None:
    """One contender's result, or None where it ended without one."""
    name, *flags = contender
    command: list[Any] = [sys.executable if name.startswith("ours") else python, "-m", "bench.trainer.contend", name]
    about = {"shape": race.shape, "lengths": race.lengths, "batch": race.batch, "steps": steps, "seconds": seconds}
    command += [word for key, value in about.items() for word in (f"--{key}", str(value))]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
    found = [line.removeprefix(MARK) for line in done.stdout.splitlines() if line.startswith(MARK)]
    sys.stderr.write(f"{race.setting}: {' '.join(contender)}: {'done' if found else done.stderr[-300:]}\n")
    if not found:
        return None
    called = f"{name}-bfloat16" if name == "ours" and flags else name
    result: dict[str, Any] = json.loads(found[0])
    return result | {"setting": race.setting, "machine": described(), "contender": called}


def raced(race: Race, python: Path, *, steps: int, seconds: float, runs: int) -> Iterator[dict[str, Any]]:
    """The better run of each contender."""
    found = [
        run(race, contender, python, steps=steps, seconds=seconds) for _ in range(runs) for contender in race.contenders
    ]
    results = sorted((one for one in found if one), key=lambda one: str(one["contender"]))
    for _, same in groupby(results, key=lambda one: one["contender"]):
        yield max(same, key=lambda one: float(one["tokens_per_second"]))


def page(results: list[dict[str, Any]]) -> str:
    """The page of bench/results."""
    parts = [
        "# Training beside its peers\n",
        "Written by `make bench-trainer`. LoRA with r = 16 on all linear layers, random weights, the same rows for\n"
        "all; 30 % of a ragged row carry loss. Tokens are counted without padding, of whole steps. MFU counts what\n"
        "LoRA needs (4 operations per frozen weight, not 6) against 989 TFLOP/s. `ours-eager` is without compiled\n"
        "layers, `ours-padded-unfused-eager` without packing and fused adapters too. What TRL is told beyond its\n"
        "defaults is in bench/trainer/peers.py. How to read it, and what is missing:\n"
        "docs/decisions/2026-11-26-training-speed.md.\n",
    ]
    for setting, some in groupby(results, key=lambda one: str(one["setting"])):
        group = list(some)
        parts += [f"## {setting}\n", f"{group[0]['machine']}.\n", _table(setting, group)]
    return "\n".join(parts)


def _table(setting: str, results: list[dict[str, Any]]) -> str:
    best = max(float(one["tokens_per_second"]) for one in results)
    lines = [
        "| contender | tokens/s | of the best | steps timed | peak, GiB | first step, s | MFU | first and last loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in sorted(results, key=lambda one: -float(one["tokens_per_second"])):
        speed, losses = float(one["tokens_per_second"]), one["losses"]
        shape, lengths = setting.split()
        mfu = "" if "cpu" in lengths else f"{work.flops_per_token(shape, work.rows(lengths, 256)) * speed / PEAK:.0%}"
        loss = f"{losses[0]:.2f} → {losses[-1]:.2f}" if losses else "not logged in so few steps"
        lines.append(
            f"| {one['contender']} | {speed:,.0f} | {speed / best:.0%} | {one['timed_steps']} | "
            f"{one['peak_bytes'] / 2**30:.1f} | {one['first_step_seconds']:.1f} | {mfu} | {loss} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    """Race, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--device", choices=["cpu", "cuda", "none"], default="cpu", help="none: only write the page anew"
    )
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--runs", type=int, default=2)
    args = parser.parse_args()
    races = {"cpu": CPU, "cuda": GPU, "none": ()}[args.device]
    here = RESULTS / f"trainer-{args.device}.jsonl"
    if races:
        python = peers_python()
        found = [
            one for race in races for one in raced(race, python, steps=args.steps, seconds=args.seconds, runs=args.runs)
        ]
        here.write_text("".join(f"{json.dumps(one)}\n" for one in found), encoding="utf-8")
    kept = [
        json.loads(line) for path in sorted(RESULTS.glob("trainer-*.jsonl")) for line in path.read_text().splitlines()
    ]
    (RESULTS / "trainer.md").write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
