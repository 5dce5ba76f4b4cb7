"""README.md of an artifact: which model was tuned, on which data, how, and with which result. Pure; quotes no row."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from finetune_api.peft_only import peft_only
from finetune_api.trainer import TrainerJob
from finetune_api.verdict import SPLITS, DatasetVerdict
from finetune_api.words import counted

Fields = Mapping[str, Any]


def card(job: TrainerJob, about: Fields, dataset: DatasetVerdict, numbers: Fields, *, adapter: Fields | None) -> str:
    """The card as Markdown with the front matter that hubs read.

    `about` is the artifact's manifest without its files, `numbers` its result.json, `adapter` its adapter_config.json.
    """
    parts = [
        _front_matter(job, about, adapter),
        f"# {job.spec.model_ref.name}\n\n{job.spec.base_model}, tuned by the FineTuneJob {job.namespace}/{job.name}.\n",
        "## Data\n\n" + _table(("split", "rows", "tokens", "SHA-256"), _splits(dataset)),
        "## Training\n\n" + _table(("setting", "value"), _settings(job, about)),
        "## Results\n\n" + _table(("measure", "value"), _losses(job, numbers["training"])),
        _evaluation(numbers["evaluation"]),
        "## Use\n\n" + _use(job, about, adapter),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(job: TrainerJob, about: Fields, adapter: Fields | None) -> str:
    kind = "text2text-generation" if about["architecture"] == "Seq2SeqLM" else "text-generation"
    fields = {
        "base_model": job.spec.base_model,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": kind,
        "tags": ["finetune-operator", job.spec.method.lower(), *(["dpo"] if job.spec.preference else [])],
    }
    return "---\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in fields.items()) + "---\n"


def _splits(dataset: DatasetVerdict) -> Iterator[tuple[Any, ...]]:
    for name in SPLITS:
        split = getattr(dataset, name)
        if split is not None:
            yield name, split.rows, split.tokens, split.sha256


def _settings(job: TrainerJob, about: Fields) -> Iterator[tuple[Any, ...]]:
    yield "method", job.spec.method + (", merged" if about["merged"] else "")
    if job.spec.preference:
        yield "objective", "DPO (arXiv 2305.18290) on rows with a chosen and a rejected answer"
    if about["codeSHA256"]:
        yield "own code, SHA-256", about["codeSHA256"]
        yield "settings below", "as the job has them; the code may have done otherwise"
    blocks = (job.spec.preference, job.spec.adapters, job.spec.hyperparameters)
    for block in blocks:
        yield from (block.wire().items() if block else ())
    yield "software", ", ".join(f"{name} {version}" for name, version in about["versions"].items())


def _losses(job: TrainerJob, training: Fields) -> Iterator[tuple[Any, ...]]:
    unit = "DPO loss per row" if job.spec.preference else "nats per completion token"
    for name, said in (("trainLoss", "training loss"), ("evalLoss", "validation loss")):
        if training.get(name) is not None:
            yield f"{said}, {unit}", _number(training[name])
    for name, said in (("rewardAccuracy", "reward accuracy"), ("rewardMargin", "reward margin")):
        if training.get(name) is not None:
            yield said, _number(training[name])
    yield "steps", training["steps"]
    yield from (("warning", said) for said in training.get("warnings", ()))


def _evaluation(found: Fields | None) -> str:
    """The tuned model beside its baselines on the test set, one row per metric."""
    if found is None:
        return ""
    columns = {"tuned": found["tuned"]}
    for name, baseline in found["baselines"].items():
        services = baseline if isinstance(baseline, list) else []
        columns |= {f"endpoint {one['name']}": one for one in services} or {name: baseline}
    measures = [name for name, value in found["tuned"].items() if isinstance(value, int | float)]
    rows = ((name, *(_number(column.get(name)) for column in columns.values())) for name in measures)
    verdict = f"\nVerdict: {found['verdict']}.\n" if found.get("verdict") else ""
    return f"On {counted(found['rows'], 'row')} of the test set:\n\n" + _table(("measure", *columns), rows) + verdict


def _use(job: TrainerJob, about: Fields, adapter: Fields | None) -> str:
    if about["architecture"] == "Seq2SeqLM":
        return "Prompts are plain text: the system message, a line break, the prompt.\n"
    asked = "Prompts go through the chat template of this folder.\n"
    if not adapter or adapter.get("use_dora") or peft_only(adapter):
        return asked
    rank = f"--max-lora-rank {adapter['r']}"
    name = job.spec.model_ref.name
    own = "--tokenizer FOLDER --generation-config FOLDER"
    command = f"vllm serve {job.spec.base_model} --enable-lora {rank} --lora-modules {name}=FOLDER {own}"
    return f"{asked}\n```\n{command}\n```\n"


def _table(head: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join("| " + " | ".join("" if cell is None else str(cell) for cell in line) + " |\n" for line in lines)


def _number(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None
