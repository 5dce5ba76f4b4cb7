"""The finished artifact, OUTPUT/model: weights, tokenizer, and everything known about them; written atomically.

    adapter_model.safetensors, adapter_config.json   method LoRA
    model*.safetensors, config.json                  method Full
    tokenizer files, chat_template.jinja, generation_config.json
    metrics.jsonl, loss.svg, dataset.json, result.json, report.html, evaluation.jsonl (with dataset.test)
    README.md                                        a model card
    manifest.json                                    base model, method, versions, checksums; written last

Does not train or evaluate.
"""

import copy
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune_api import RELEASE
from finetune_api.evaluation import EvaluationResult
from finetune_api.job_status import ArtifactRef, Loss, TrainingResult
from finetune_api.names import ARTIFACT_FOLDER, MANIFEST
from finetune_api.peft_only import peft_only
from finetune_api.reasons import Reason
from finetune_api.trainer import TrainerJob
from finetune_api.verdict import DatasetVerdict
from finetune_trainer.attempt import metrics
from finetune_trainer.attempt.trackers import TENSORBOARD_FOLDER
from finetune_trainer.data import ChatTokenizer
from finetune_trainer.errors import TrainerError
from finetune_trainer.models.base_probe import BASE_PROBE, Probe
from finetune_trainer.models.generation import generation_config
from finetune_trainer.models.loaded_weights import first_not_finite
from finetune_trainer.output import model_card
from finetune_trainer.storage.durable import (
    bytes_of,
    read_manifest_or_raise,
    remove_unfinished,
    sha256_of,
    volume_error,
    whole_folder,
)

if TYPE_CHECKING:
    from finetune_trainer.evaluation.contest import Contest
    from finetune_trainer.evaluation.models import Model

_LIBRARIES = ("torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True)
class Finished:
    """What a complete artifact records about its run."""

    fingerprint: str
    dataset: DatasetVerdict
    result: TrainingResult
    evaluation: EvaluationResult | None
    curves: Loss
    code_sha256: str | None = None
    """SHA-256 of the job's own code, if any."""


def folder_of(job: TrainerJob) -> Path:
    """The folder of the job's artifact, whether it exists or not."""
    return Path(job.artifact_folder) if job.artifact_folder else Path(job.output) / ARTIFACT_FOLDER


def finished(job: TrainerJob) -> Finished | None:
    """What an earlier attempt finished, or None if there is no complete artifact.

    Raises:
        TrainerError: StoreUnavailable or ArtifactFailed, it exists but cannot be read now; training again would
            replace it.
    """
    folder = folder_of(job)
    remove_unfinished(folder.parent)
    try:
        manifest = read_manifest_or_raise(folder)
    except OSError as error:
        raise volume_error(f"{folder} holds a tuned model that cannot be read", error) from error
    if manifest is None:
        return None
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    evaluation = result["evaluation"]
    return Finished(
        fingerprint=manifest["fingerprint"],
        dataset=DatasetVerdict.model_validate_json((folder / "dataset.json").read_bytes()),
        result=TrainingResult.model_validate({**result["training"], "artifact": _reference(job)}),
        evaluation=EvaluationResult.model_validate(evaluation) if evaluation else None,
        curves=metrics.Metrics(folder / metrics.FILE).curves(),
    )


def write(
    job: TrainerJob,
    model: "Model",
    done: Finished,
    *,
    base: Probe,
    record: metrics.Metrics,
    contest: "Contest | None",
    pages: Mapping[str, str],
    before_rename: Callable[[], None],
) -> ArtifactRef:
    """Write the artifact.

    Args:
        job: The job.
        model: The tuned model.
        done: What `finished` will return; its result does not name the artifact yet.
        base: Probe of the base model, if the weights are an adapter on it.
        record: The record of steps and validations.
        contest: The answers to the test set, if there is one.
        pages: loss.svg and report.html, by these names.
        before_rename: If it raises, no artifact is left.

    Raises:
        TrainerError: ArtifactFailed; TrainingDiverged, a weight is not finite.
    """
    net, tokenizer, chat = model
    _require_finite(net)
    numbers = {"training": done.result.wire(), "evaluation": done.evaluation.wire() if done.evaluation else None}
    adapter = hasattr(net, "peft_config")
    about = _about(job, done, adapter=adapter, encoder_decoder=chat.encoder_decoder)
    about |= {"fingerprint": done.fingerprint, **({BASE_PROBE: base} if adapter else {})}
    with whole_folder(folder_of(job), before_rename=before_rename, **about) as folder:
        save_weights(folder, net)
        save_tokenizer(folder, tokenizer, chat)
        generation_config(net, tokenizer, chat).save_pretrained(folder)
        card = model_card.card(job, about, done.dataset, numbers, adapter=_adapter_config(folder))
        (folder / "README.md").write_text(card, encoding="utf-8")
        record.write(folder / metrics.FILE)
        (folder / "dataset.json").write_text(json.dumps(done.dataset.wire(), indent=2) + "\n", encoding="utf-8")
        (folder / "result.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        for name, page in pages.items():
            (folder / name).write_text(page, encoding="utf-8", errors="backslashreplace")
        events = Path(job.output) / TENSORBOARD_FOLDER
        if events.is_dir():
            shutil.copytree(events, folder / TENSORBOARD_FOLDER)
        if contest:
            contest.write_rows(folder / "evaluation.jsonl")
    return _reference(job)


def _require_finite(net: Any) -> None:
    """For an adapter only its own weights: the base model's were checked when it was loaded."""
    adapter = hasattr(net, "peft_config")
    if name := first_not_finite(one for one in net.named_parameters() if not adapter or "lora_" in one[0]):
        raise TrainerError(Reason.TRAINING_DIVERGED, f"after the training {name} holds numbers that are not finite")


def _about(job: TrainerJob, done: Finished, *, adapter: bool, encoder_decoder: bool) -> dict[str, Any]:
    """The manifest's fields about the origin of the weights."""
    return {
        "baseModel": job.spec.base_model,
        "method": job.spec.method,
        "merged": job.spec.artifact.merge and not adapter,
        "architecture": "Seq2SeqLM" if encoder_decoder else "CausalLM",
        "codeSHA256": done.code_sha256,
        "datasetSHA256": done.dataset.train.sha256 if done.dataset.train else None,
        "job": {"namespace": job.namespace, "name": job.name, "uid": job.uid},
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"finetune-trainer": RELEASE, **{name: version(name) for name in _LIBRARIES}},
    }


def save_weights(folder: Path, model: Any) -> None:
    """Save adapter or whole model as safetensors, with its configuration, without peft's model card.

    64-bit floats, possible from own code or a base model, are converted to 32 bits, the widest that servers use.
    """
    import torch

    for value in (*model.parameters(), *model.buffers()):
        if value.dtype is torch.float64:
            value.data = value.data.float()
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        model.save_pretrained(folder)


def save_tokenizer(folder: Path, tokenizer: Any, chat: ChatTokenizer) -> None:
    """Save the base model's tokenizer with the chat template used in training, which may not be its own."""
    saved = copy.deepcopy(tokenizer)
    saved.chat_template = None if chat.encoder_decoder else chat.template
    saved.save_pretrained(folder)


def _reference(job: TrainerJob) -> ArtifactRef:
    folder = folder_of(job)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    adapter = _adapter_config(folder) or {}
    return ArtifactRef(
        uri=job.artifact_uri,
        kind="Adapter" if adapter else "Full",
        architecture=manifest["architecture"],
        lora_rank=adapter.get("r"),
        use_dora=adapter.get("use_dora") or None,
        needs_peft=bool(peft_only(adapter)) or None,
        bytes=bytes_of(folder),
        sha256=sha256_of(folder / MANIFEST),
    )


def _adapter_config(folder: Path) -> dict[str, Any] | None:
    path = folder / "adapter_config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
