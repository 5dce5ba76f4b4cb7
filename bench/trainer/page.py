"""The page of bench/results, from saved results. Pure."""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import Any

from bench.trainer import work
from bench.trainer.races import AGREEMENT

Result = dict[str, Any]

PEAK = 989e12
"""Of an H100 or H200 in dense bfloat16, FLOP per second, according to its data sheet."""

BOUND = 1e-4
"""Allowed relative difference from our loss in the same step: 32 bits, the same rows in the same order."""

_OTHER_ORDER = ("trl-grouped", "trl-packing", "trl-liger")

_HEAD = """# Training beside its peers

Written by `make bench-trainer`. LoRA with r = 16 on all linear layers; first weights, adapters and rows are the same
for all; 30 % of a ragged row carry loss. Tokens are counted without padding, of whole steps. `ours-eager` is without
compiled layers, `ours-padded` without packing, `-dropout` with 0.1 of it, `-unfused` with peft's own layers;
`-nf4` is QLoRA, a base in 4 bits. A first step that is partly cached found some kernels compiled before.
What each peer is told beyond its defaults is in bench/trainer/by_*.py; `-slim` and all of
TRL's but `trl-defaults` train without activation checkpointing, `-bfloat16` and `-float32` say what was asked for;
`ours` is `precision: Auto`. TRL's own default is 16 bits, on a CPU too. How to read it, and what is missing:
docs/decisions/2026-11-26-training-speed.md.
"""


def page(results: Iterable[Result]) -> str:
    """All tables."""
    parts = [_HEAD]
    for setting, some in groupby(results, key=lambda one: str(one["setting"])):
        table = _agreement if setting == setting_of(AGREEMENT.task) else _speed
        parts.append(table(setting, list(some)))
    return "\n".join(parts)


def setting_of(task: work.Task) -> str:
    """The name of a task's setting."""
    return f"{task.shape} {task.lengths}"


def apart(losses: list[float], ours: list[float]) -> float | None:
    """The largest relative difference of two curves in the same step; None without common steps."""
    return max((abs(one - other) / other for one, other in zip(losses, ours, strict=False)), default=None)


def agreement(results: list[Result]) -> list[tuple[Result, float, float]]:
    """Contenders, with the differences of their curves and of their held-out losses from ours."""
    ours = next(one for one in results if one["contender"].removesuffix("-float32") == "ours")
    return [
        (
            one,
            apart(one["losses"], ours["losses"]) or 0.0,
            abs(one["held_out_loss"] - ours["held_out_loss"]) / ours["held_out_loss"],
        )
        for one in results
    ]


def _agreement(setting: str, results: list[Result]) -> str:
    done, refused = _apart_from_refused(results)
    compared = agreement(done)
    worst = max(max(curve, end) for _, curve, end in compared)
    agree = f"{'All' if worst <= BOUND else 'NOT all'} stay within {BOUND:.2%} of ours (at most {worst:.2g})."
    lines = [
        f"## Do all learn the same? ({setting})\n",
        f"{_machine(results)}. {len(compared[0][0]['losses'])} steps of {results[0]['batch']} rows in 32 bits; losses",
        "are means over the tokens that carry loss, of the step's rows, and at the end of rows that nobody trained on.",
        f"{agree}\n",
        "| contender | first loss | last loss | curve apart from ours | held-out loss | apart from ours |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for one, curve, end in compared:
        losses = f"{one['losses'][0]:.4f} | {one['losses'][-1]:.4f}"
        lines.append(f"| {one['contender']} | {losses} | {curve:.1e} | {one['held_out_loss']:.4f} | {end:.1e} |")
    return "\n".join([*lines, "", *refused])


def _speed(setting: str, results: list[Result]) -> str:
    done, refused = _apart_from_refused(results)
    columns = _columns(setting, done)
    rows = [
        [name for name, _ in columns],
        ["---"] * len(columns),
        *([cell(one) for _, cell in columns] for one in sorted(done, key=lambda one: -float(one["tokens_per_second"]))),
    ]
    each = f" {results[0]['batch']} rows a step." if "batch" in results[0] else ""
    about = f"{_machine(results)}.{each}{_other_days(results)}\n"
    lines = [f"## {setting}\n", about, *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, *_versions(done), *refused])


def _versions(done: list[Result]) -> list[str]:
    """The versions of each program, if recorded."""
    of_program: dict[str, dict[str, str]] = {}
    for one in done:
        program = one["contender"].partition("-")[0]
        of_program[program] = of_program.get(program, {}) | one.get("versions", {})
    told = [
        f"- `{program}` ran with " + ", ".join(f"{name} {number}" for name, number in versions.items())
        for program, versions in of_program.items()
        if versions
    ]
    return [*told, ""] if told else []


def _columns(setting: str, done: list[Result]) -> list[tuple[str, Callable[[Result], str]]]:
    best = max(float(one["tokens_per_second"]) for one in done)
    ours: list[float] = next((one["losses"] for one in done if one["contender"].startswith("ours")), [])
    columns: list[tuple[str, Callable[[Result], str]]] = [
        ("contender", lambda one: one["contender"]),
        ("tokens/s", lambda one: f"{one['tokens_per_second']:,.0f}"),
        ("of the best", lambda one: f"{one['tokens_per_second'] / best:.0%}"),
    ]
    if "cpu" in setting and all("tokens_per_cpu_second" in one for one in done):
        columns.append(("tokens per CPU second", lambda one: f"{one['tokens_per_cpu_second']:,.0f}"))
    columns += [
        ("steps timed", lambda one: f"{one['timed_steps']}"),
        ("peak, GiB", lambda one: f"{one['peak_bytes'] / 2**30:.1f}"),
        ("first step, s", _first_step),
    ]
    shape, lengths = setting.split()
    if "cpu" not in lengths:
        flops = work.flops_per_token(shape, work.rows(lengths, 256))
        columns.append(("MFU", lambda one: f"{flops * one['tokens_per_second'] / PEAK:.0%}"))
    return [*columns, ("losses", _losses), ("apart from ours", lambda one: _apart(one, ours))]


def _first_step(one: Result) -> str:
    return f"{one['first_step_seconds']:.1f}{' (partly cached)' if one.get('cached') else ''}"


def _losses(one: Result) -> str:
    losses = one["losses"]
    return f"{losses[0]:.2f} → {losses[-1]:.2f}" if losses else "not logged"


def _apart(one: Result, ours: list[float]) -> str:
    if one["contender"].startswith(_OTHER_ORDER):
        return "other order"
    found = apart(one["losses"], ours)
    return "" if found is None else f"{found:.1e}"


def _apart_from_refused(results: list[Result]) -> tuple[list[Result], list[str]]:
    refused = [f"- `{one['contender']}` did not run: {one['refused']}" for one in results if "refused" in one]
    return [one for one in results if "refused" not in one], [*refused, ""] if refused else []


def _machine(results: list[Result]) -> str:
    return str(results[0]["machine"])


def _other_days(results: list[Result]) -> str:
    """Contenders that were measured on another day than the table's header says."""
    days: dict[str, list[str]] = {}
    for one in results:
        days.setdefault(str(one["machine"]).partition(",")[0], []).append(f"`{one['contender']}`")
    return "".join(f" On {day}: {', '.join(names)}." for day, names in list(days.items())[1:])
