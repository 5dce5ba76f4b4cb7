"""Fields without a value, which not every way to the API server accepts.

`kubectl apply` and `kubectl create` drop them. Server-side apply, as used by Flux, sends them unchanged, and the API
server refuses those without a default. Only a warning, because it depends on how the manifest is applied.
"""

from finetune_api.crds import Kind
from finetune_api.schema import structural_schema
from finetune_trainer.job.fields import shown
from finetune_trainer.job.yaml_documents import Document

_MESSAGE = (
    "there is nothing after its colon, so that it counts as not written, and server-side apply, as Flux does it, "
    "refuses it: write its value or remove the field"
)


def left_empty(kind: Kind, document: Document) -> list[str]:
    """All such fields of an object's spec: the path, and what to do."""
    if not document.has_empty_fields:
        return []
    schema = {"properties": {"spec": {**structural_schema(kind.spec), "default": {}}}}
    return [f"{shown(path)}: {_MESSAGE}" for path in document.empty_paths(schema)]
