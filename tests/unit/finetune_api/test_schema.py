"""Structural schemas from models: what Kubernetes takes and what it does not."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import ConfigDict, Field

from finetune_api.base import CLOSED, ApiModel, Quantity, rules, shaped
from finetune_api.schema import SchemaError, structural_schema


class Colour(StrEnum):
    """A colour."""

    RED = "Red"
    GREEN = "Green"


class Part(ApiModel):
    """A part."""

    size_gb: Annotated[int, Field(ge=1, le=9)] = Field(3, description="Size in GB.")
    note: str | None = Field(None, description="A note.")


class Whole(ApiModel):
    """A whole."""

    required: str = Field(description="Required.")
    text: Annotated[str, Field(max_length=5, pattern="^a")] | None = Field(None, description="Text.")
    ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="A ratio.")
    flag: bool = Field(False, description="A flag.")
    mode: Literal["A", "B"] = Field("A", description="Mode.")
    only: Literal["X"] = Field("X", description="One value.")
    colour: Colour = Field(Colour.RED, description="Which colour.")
    part: Part = Field(Part(), description="Its part.")
    again: Part | None = Field(None, description="Another part.")
    names: Annotated[list[str], Field(max_length=2)] = Field(default_factory=lambda: ["a", "b"], description="Names.")
    table: Annotated[dict[str, Part], Field(max_length=4)] | None = Field(None, description="Parts by name.")
    amount: Quantity | None = Field(None, description="How much.")
    open: Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})] | None = (
        Field(None, description="Anything.")
    )
    url: Annotated[str, Field(max_length=9), shaped("^http", "write a URL")] | None = Field(None, description="A URL.")


PART = {
    "type": "object",
    "properties": {
        "sizeGb": {
            "type": "integer", "minimum": 1, "maximum": 9, "default": 3,
            "description": "Size in GB. Default: 3. Range: 1 to 9.",
        },
        "note": {"type": "string", "description": "A note."},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("required", {"type": "string", "description": "Required."}),
        ("text", {"type": "string", "maxLength": 5, "pattern": "^a", "description": "Text."}),
        (
            "ratio",
            {
                "type": "number",
                "minimum": 0,
                "exclusiveMinimum": True,
                "maximum": 1,
                "exclusiveMaximum": True,
                "default": 0.5,
                "description": "A ratio. Default: 0.5. Range: above 0 to below 1.",
            },
        ),
        ("flag", {"type": "boolean", "default": False, "description": "A flag. Default: false."}),
        ("mode", {"type": "string", "enum": ["A", "B"], "default": "A", "description": "Mode. Default: A."}),
        ("only", {"type": "string", "enum": ["X"], "default": "X", "description": "One value. Default: X."}),
        (
            "colour",
            {
                "type": "string",
                "enum": ["Red", "Green"],
                "default": "Red",
                "description": "Which colour. Default: Red.",
            },
        ),
        ("part", {**PART, "default": {"sizeGb": 3}, "description": "Its part."}),
        ("again", {**PART, "description": "Another part."}),
        (
            "names",
            {
                "type": "array",
                "items": {"type": "string"},
                "maxItems": 2,
                "default": ["a", "b"],
                "description": "Names. Default: a, b.",
            },
        ),
        (
            "table",
            {
                "type": "object",
                "maxProperties": 4,
                "additionalProperties": {**PART, "description": "A part."},
                "description": "Parts by name.",
            },
        ),
        ("open", {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "description": "Anything."}),
        (
            "url",
            {
                "type": "string",
                "maxLength": 9,
                "x-kubernetes-validations": [{"rule": "self.matches(r'^http')", "message": "write a URL"}],
                "description": "A URL.",
            },
        ),
    ],
)
def test_each_construct_becomes_what_kubernetes_calls_it(field: str, expected: dict[str, Any]) -> None:
    assert structural_schema(Whole)["properties"][field] == expected


def test_a_part_that_a_lost_field_would_widen_keeps_what_it_does_not_know_and_is_then_refused() -> None:
    class Selector(ApiModel):
        model_config = ConfigDict(json_schema_extra={CLOSED: True})
        first: str | None = Field(None, description="One.")
        second: str | None = Field(None, description="Another.")

    schema = structural_schema(Selector)
    assert schema["x-kubernetes-preserve-unknown-fields"] is True
    assert CLOSED not in schema
    taken = jsonschema.Draft7Validator(schema).is_valid
    known = ({}, {"first": "a"}, {"second": "a"}, {"first": "a", "second": "b"})
    assert all(map(taken, known))
    assert not any(taken({**one, name: 1}) for one in known for name in ("frist", "x"))
    assert schema["anyOf"][0] == {"enum": ["no fields but first, second"]}  # what the API server says of a refused one


def test_int_or_string_has_no_type_of_its_own() -> None:
    amount = structural_schema(Whole)["properties"]["amount"]
    assert amount["x-kubernetes-int-or-string"] is True
    assert not {"type", "anyOf"} & set(amount)


def test_only_fields_without_default_are_required() -> None:
    assert structural_schema(Whole)["required"] == ["required"]


def test_status_schemas_fill_nothing_in() -> None:
    assert "default" not in str(structural_schema(Whole, defaults=False)).replace("Default", "")


def test_rules_of_a_model_stay_with_the_object_they_are_about() -> None:
    class Ruled(ApiModel):
        """Has a rule."""

        model_config = ConfigDict(json_schema_extra=rules(("self.a == 1", "a is 1")))
        a: int = Field(1, description="A.")

    class Outer(ApiModel):
        """Holds it."""

        ruled: Ruled | None = Field(None, description="Ruled.")

    schema = structural_schema(Outer)["properties"]["ruled"]
    assert schema["x-kubernetes-validations"] == [{"rule": "self.a == 1", "message": "a is 1"}]


def test_parts_in_a_default_list_are_spelled_as_in_a_manifest() -> None:
    class Listed(ApiModel):
        parts: Annotated[list[Part], Field(max_length=2)] = Field(
            default_factory=lambda: [Part(size_gb=4)], description="Parts. Default: one."
        )

    assert structural_schema(Listed)["properties"]["parts"]["default"] == [{"sizeGb": 4}]


def test_a_part_without_fields_has_no_list_of_them() -> None:
    class Empty(ApiModel):
        """Nothing."""

    assert structural_schema(Empty) == {"type": "object", "description": "Nothing."}


def test_a_choice_of_types_is_no_structural_schema() -> None:
    class Odd(ApiModel):
        """Takes a number or a part."""

        value: int | Part = Field(description="A number or a part.")

    with pytest.raises(SchemaError, match="choice between 2 types"):
        structural_schema(Odd)


def test_a_construct_that_kubernetes_has_no_word_for_is_named() -> None:
    class Odd(ApiModel):
        """A map whose keys have a shape."""

        value: str = Field(description="Text.", json_schema_extra={"contentEncoding": "base64"})

    with pytest.raises(SchemaError, match="contentEncoding"):
        structural_schema(Odd)
