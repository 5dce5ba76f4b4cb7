"""Validates a simulator's answers and requests by the SDKs' pydantic models and typed dictionaries."""

from functools import cache, lru_cache
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter

B = TypeVar("B")


class DriftError(Exception):
    """The simulator would send something that the provider's SDK does not know."""


def conform(model: type[BaseModel], body: B) -> B:
    """Return `body` if it matches `model` exactly.

    Raises:
        DriftError: a field is missing, of another type, or unknown to the model.
    """
    _read(model, orjson.dumps(body))
    return body


@lru_cache(maxsize=1024)
def _read(model: type[BaseModel], body: bytes) -> None:
    """Validate a body; cached, as the same are sent repeatedly."""
    try:
        instance = model.model_validate_json(body, strict=True)
    except ValueError as error:
        raise DriftError(str(error)) from error
    if unknown := sorted(_extras(instance)):
        raise DriftError(f"{model.__name__} does not know {', '.join(unknown)}")


def _extras(value: Any, at: str = "") -> set[str]:
    if isinstance(value, BaseModel):
        own = {f"{at}.{name}" for name in value.model_extra or {}}
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        return own.union(*(_extras(field, f"{at}.{name}") for name, field in fields.items()))
    if isinstance(value, list):
        return set().union(*(_extras(item, f"{at}[{index}]") for index, item in enumerate(value)))
    return set()


def unknown_keys(typed_dict: Any, body: dict[str, Any]) -> list[str]:
    """The paths in `body` that the typed dictionary does not have.

    Raises:
        pydantic.ValidationError: something is missing or of another type.
    """
    return sorted(_dropped(body, _adapter(typed_dict).validate_json(orjson.dumps(body), strict=True)))


@cache
def _adapter(typed_dict: Any) -> TypeAdapter[Any]:
    return TypeAdapter(typed_dict)


def _dropped(sent: Any, kept: Any, at: str = "") -> set[str]:
    if isinstance(sent, dict) and isinstance(kept, dict):
        own = {f"{at}{name}" for name in sent.keys() - kept.keys()}
        return own.union(*(_dropped(sent[name], kept[name], f"{at}{name}.") for name in sent.keys() & kept.keys()))
    return set()
