"""Fields behind whose colon nothing stands, which not every way to the API server takes.

`kubectl apply` and `kubectl create` leave them out. Server-side apply, as Flux does it, sends them as they are, and the
API server refuses each that it has no default for: a warning, since it depends on who applies the manifest.
"""

from finetune_api.crds import Kind
from finetune_api.schema import structural_schema
from finetune_trainer.job.fields import shown
from finetune_trainer.job.yaml_documents import Document

_SAID = (
    "there is nothing after its colon, so that it counts as not written, and server-side apply, as Flux does it, "
    "refuses it: write its value or remove the field"
)


def left_empty(kind: Kind, document: Document) -> list[str]:
    """Every such field of an object's spec: its path, and what to do."""
    if not document.has_nothing:
        return []
    schema = {"properties": {"spec": {**structural_schema(kind.spec), "default": {}}}}
    return [f"{shown(path)}: {_SAID}" for path in document.nothing_at(schema)]
