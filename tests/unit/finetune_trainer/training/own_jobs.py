"""Jobs with code of their own."""

from pathlib import Path

from finetune_api.trainer import TrainerJob
from tests.unit.finetune_trainer.jobs import make_job

EXAMPLES = Path(__file__).resolve().parents[4] / "examples" / "custom-code"
REFERENCE = {"configMapRef": {"name": "my-recipe", "key": "train.py"}}


def job_with(code: str | Path, folder: Path, cache: Path, **spec) -> TrainerJob:
    """A job whose ConfigMap is a folder of this machine."""
    splits = spec.pop("splits", ("train",))
    job = make_job(folder, cache, splits=splits, code=REFERENCE, **spec)
    path = folder / "configmap" / "train.py"
    path.parent.mkdir()
    path.write_text(code.read_text() if isinstance(code, Path) else code)
    return job.model_copy(update={"code": str(path)})
