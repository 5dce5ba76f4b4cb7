"""Jobs with custom code."""

from pathlib import Path

import pytest

from finetune_api.trainer import TrainerJob
from tests.assets.tiny_model import NAME
from tests.unit.finetune_trainer.jobs import make_job

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "custom-code"
REFERENCE = {"configMapRef": {"name": "my-recipe", "key": "train.py"}}


def job_with(code: str | Path, folder: Path, cache: Path, **spec) -> TrainerJob:
    """A job whose ConfigMap is a local folder."""
    splits = spec.pop("splits", ("train",))
    job = make_job(folder, cache, splits=splits, code=REFERENCE, **spec)
    path = folder / "configmap" / "train.py"
    path.parent.mkdir()
    path.write_text(code.read_text() if isinstance(code, Path) else code)
    return job.model_copy(update={"code": str(path)})


@pytest.fixture
def left(tiny_model, tmp_path):
    """A job, the base's folder and a good adapter, as `save_pretrained` writes it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model / NAME)
    tuned = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "v_proj"]))
    tuned.save_pretrained(tmp_path / "left")
    return make_job(tmp_path, tiny_model, splits=("train",)), tiny_model / NAME, tmp_path / "left"
