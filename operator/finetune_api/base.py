"""What all kinds share: the base class of the models, references, quantities, conditions."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from finetune_api.hosts import HOST, PORT
from finetune_api.quantities import MOST_CORES
from finetune_api.uris import KEY_SHAPE, PLACEHOLDER, PLACEHOLDER_HELP


def alias(name: str) -> str:
    """CamelCase as Kubernetes spells it: an acronym at the end of a name keeps its capitals."""
    camel = to_camel(name)
    for plain, spelled in (
        ("Id", "ID"),
        ("Uid", "UID"),
        ("Url", "URL"),
        ("Uri", "URI"),
        ("Arn", "ARN"),
        ("Sha256", "SHA256"),
    ):
        if camel.endswith(plain):
            camel = camel[: -len(plain)] + spelled
    return camel


class ApiModel(BaseModel):
    """A part of a manifest: snake_case in Python, camelCase on the wire, unknown fields rejected.

    Errors never quote the input: it may be a row, or an answer, and errors are logged.
    """

    model_config = ConfigDict(
        alias_generator=alias, populate_by_name=True, extra="forbid", frozen=True, hide_input_in_errors=True
    )

    def wire(self) -> dict[str, Any]:
        """The part as JSON-ready camelCase, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


RULES = "x-kubernetes-validations"
"""The schema's key for CEL rules."""

CLOSED = "x-closed"
"""Marks a part that is more permissive without one of its fields, so unknown ones must be rejected, not dropped."""


def rules(*told: tuple[str, str] | tuple[str, str, str]) -> dict[str, Any]:
    """CEL rules for the API server: (expression, message that says what to write instead, field to blame).

    The field is a path below the part that has the rule, such as `.lora.r`; without one the part itself is blamed.
    """
    return {RULES: [dict(zip(("rule", "message", "fieldPath"), one, strict=False)) for one in told]}


SHAPES: dict[str, str] = {}
"""The message for each pattern, for texts that were not checked by an API server."""


def shaped(pattern: str, message: str) -> Any:
    """A pattern whose error says what to write: pydantic checks it, and the API server as a CEL rule."""

    def as_rule(schema: dict[str, Any]) -> None:
        schema.pop("pattern", None)
        shape = rules((f"self.matches(r'{pattern}')", message))[RULES]
        schema[RULES] = [*shape, *schema.get(RULES, ())]  # first: its message is the one that says what to write

    if SHAPES.setdefault(pattern, message) != message:
        raise ValueError(f"two say what to write by {pattern}: spell one of the patterns in another way")
    return Field(pattern=pattern, json_schema_extra=as_rule)


@dataclass(frozen=True)
class Never:
    """A pattern that must not match anywhere in a text, and what to write instead. Pydantic has no such pattern."""

    pattern: str
    message: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See pydantic's custom types."""
        return no_info_after_validator_function(self._require, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """See pydantic's custom types."""
        shown, never = handler(schema), rules((f"!self.matches(r'{self.pattern}')", self.message))[RULES]
        return shown | {RULES: [*shown.get(RULES, ()), *never]}

    def _require(self, text: str) -> str:
        if re.search(self.pattern, text):
            raise ValueError(self.message)
        return text


@dataclass(frozen=True)
class ReadBy(Never):
    """The same for a text that one of our parsers reads. In Python the parser decides, as it checks more."""

    parse: Callable[[str], object]

    def _require(self, text: str) -> str:
        self.parse(text)
        return text


TRIMMED = Never(r"^\s|\s$", "write it without white space at its ends, which would be part of it")
"""For a name that is compared exactly elsewhere: a YAML block ends with a line break."""

NO_PLACEHOLDER = Never(PLACEHOLDER, PLACEHOLDER_HELP)
"""For a text with placeholders in the examples."""

NO_CALL_PATH = Never(
    "/(chat/completions|completions|responses|fine_tuning/jobs)/?$",
    "write the root of the API, such as https://HOST/v1, without the path of one call",
)

HttpUrl = Annotated[
    str,
    Field(max_length=512),
    shaped(
        rf"^https?://{HOST}(/[^?#\s]*)?$",
        "write a whole URL without credentials, queries and white space, such as https://HOST or https://HOST/v1; a "
        "port is 1 to 65535",
    ),
    NO_PLACEHOLDER,
]
SecureUrl = Annotated[
    str,
    Field(max_length=512),
    shaped(
        rf"^(https://{HOST}|http://(localhost|127[.][0-9.]+|\[::1\]){PORT})(/[^?#\s]*)?$",
        "write a whole URL with https, without credentials, queries and white space, such as https://HOST: secrets go "
        "there, and http keeps none; it is for this machine alone, such as http://localhost:8080; a port is 1 to 65535",
    ),
    NO_PLACEHOLDER,
]
"""For a service that is only available over https."""

CloudUrl = Annotated[
    HttpUrl,
    Never(
        "^http://([^/]*[.])?(openai[.]com|azure[.](com|us|cn)|amazonaws[.]com([.]cn)?)(:|/|$)",
        "write https://: keys and data go there, and http keeps no secret",
    ),
]
"""For a service on the internet, or a nearby one that may have no TLS."""

ApiRoot = Annotated[CloudUrl, NO_CALL_PATH]
"""Base URL of an API with OpenAI's calls."""

SERVICE_NAME = "^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$"
"""Names of FineTunedModels and ModelDeployments: DNS labels that begin with a letter, as a Service gets the name."""

MODEL_REF_RULE = (
    f"self.modelRef.name.matches('{SERVICE_NAME}')",
    "modelRef.name becomes the name of a Service: write at most 63 of a-z, 0-9 and -, beginning with a letter "
    "and ending with a letter or a digit",
    ".modelRef.name",
)

Name = Annotated[str, Field(min_length=1, max_length=253)]
ObjectName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    shaped(
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "names of objects are in lower case: write a-z, 0-9, - and ., with a letter or a digit at both ends, "
        "such as local-cpu",
    ),
]
"""Name of an object (RFC 1123)."""

KeyName = Annotated[
    str,
    Field(min_length=1, max_length=253),
    shaped(f"^{KEY_SHAPE}$", "a key of a Secret or ConfigMap has letters, digits, '-', '_' and '.' only"),
]


_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}([.]\d+)?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)


def _moment(text: str) -> str:
    """Rejects what the API server would reject: a status with one such time could not be written at all."""
    datetime.fromisoformat(text)  # rejects dates that do not exist
    if not _RFC3339.fullmatch(text):  # Python accepts more of ISO 8601
        raise ValueError("a time is written as RFC 3339 has it, with its zone, such as 2026-01-31T12:00:00Z")
    return text


Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"}), AfterValidator(_moment)]
SIZES = ("memory", "ephemeral-storage")
"""Resources measured in bytes."""

AMOUNT_EXAMPLES = "a quantity such as 2, 500m or 16Gi"
CORES_EXAMPLES = "a quantity of CPU such as 4 or 500m"
SIZE_EXAMPLES = "a quantity of bytes such as 16Gi or 16G"


def _quantity(description: str, such: str, *more: tuple[str, str]) -> Any:
    shape = {"x-kubernetes-int-or-string": True, "maxLength": 32}
    is_one = ("isQuantity(string(self)) && !string(self).startsWith('-')", f"write {such}")
    return Field(json_schema_extra=shape | rules(is_one, *more), description=description)


Quantity = Annotated[
    str | int | float,
    _quantity("A Kubernetes quantity, for example 500m or 4Gi; a fraction in quotes.", AMOUNT_EXAMPLES),
]


def _is_quantity(value: str, compared: str) -> str:
    """CEL: whether it is a quantity for which this comparison is true."""
    return f"isQuantity(string({value})) && quantity(string({value})).{compared}"


_TOO_SMALL, _TOO_MANY = "isLessThan(quantity('64Ki'))", f"isGreaterThan(quantity('{MOST_CORES // 1000}k'))"
"""For a size without its unit; for an amount of CPU with a unit of memory."""
_SIZE_HELP = "a number alone is bytes, and this is less than 64Ki: write the unit, such as 16Gi or 512Mi"
Size = Annotated[
    str | int | float,
    _quantity(
        "Memory or scratch space as a Kubernetes quantity with its unit, for example 4Gi.",
        SIZE_EXAMPLES,
        (f"!({_is_quantity('self', _TOO_SMALL)})", _SIZE_HELP),
    ),
]
_NONE = "compareTo(quantity('0')) == 0"
_NO_CORES_HELP = "0 asks for no CPU: write the number of cores, such as 4 or 500m, or leave it out for the connection's"
_CORES_HELP = "no node has so many cores: write their number, such as 4, or thousandths with a small m, such as 4000m"
Cores = Annotated[
    str | int | float,
    _quantity(
        "An amount of CPU as a Kubernetes quantity, for example 4 or 500m.",
        CORES_EXAMPLES,
        (f"!({_is_quantity('self', _TOO_MANY)})", _CORES_HELP),
        (f"!({_is_quantity('self', _NONE)})", _NO_CORES_HELP),
    ),
]
_CPU = "self['cpu']"
_COUNTED = (
    "self.all(name, !name.contains('/') || !isQuantity(string(self[name])) || quantity(string(self[name])).isInteger())"
)
_WHOLE_NAMES = (
    "self.all(name, name.contains('/') || name in ['cpu', 'memory', 'ephemeral-storage'] || "
    "name.startsWith('hugepages-'))"
)
COUNTED_HELP = "what a device plugin hands out is counted: write a whole number, such as nvidia.com/gpu: 1"
WHOLE_NAMES_HELP = (
    "resources are cpu, memory, ephemeral-storage, and what nodes list with a domain, such as nvidia.com/gpu: 1"
)
ResourceList = Annotated[
    dict[str, Quantity],
    Field(
        max_length=16,
        json_schema_extra=rules(
            (
                " && ".join(f"!('{name}' in self && {_is_quantity(f'self[{name!r}]', _TOO_SMALL)})" for name in SIZES),
                f"{' and '.join(SIZES)}: {_SIZE_HELP}",
            ),
            (f"!('cpu' in self && {_is_quantity(_CPU, _TOO_MANY)})", f"cpu: {_CORES_HELP}"),
            (_COUNTED, COUNTED_HELP),
            (_WHOLE_NAMES, WHOLE_NAMES_HELP),
        ),
    ),
]
LabelValue = Annotated[
    str,
    Field(max_length=63),
    shaped(
        "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        "the value of a label has letters, digits, -, _ and ., with a letter or a digit at both ends",
    ),
]
LabelKey = Annotated[
    str,
    Field(min_length=1, max_length=317),
    shaped(
        "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$",
        "the key of a label has at most 63 letters, digits, -, _ and ., after a domain and / or without one: no "
        "namespace has another one, and with NotIn or DoesNotExist it would select all of them",
    ),
]
Labels = Annotated[dict[str, LabelValue], Field(max_length=64)]
StringMap = Annotated[dict[str, Annotated[str, Field(max_length=253)]], Field(max_length=64)]
Nonce = Annotated[Annotated[str, Field(max_length=64)] | None, AfterValidator(lambda text: text or None)]
"""A text whose change requests something. An empty one, as templates may leave it, counts as absent."""
Account = Annotated[str, Field(max_length=128)]
"""The account at a provider, in words."""
Money = Annotated[str, Field(max_length=24, pattern=r"^[0-9]{1,12}(\.[0-9]{1,6})?$")]


class ObjectRef(ApiModel):
    """Another object by its name."""

    name: ObjectName = Field(description="Name of the object: a-z, 0-9, - and . only.")


class ModelRef(ApiModel):
    """A FineTunedModel by its name, whose form MODEL_REF_RULE explains."""

    name: Name = Field(
        description="Name of the FineTunedModel: at most 63 of a-z, 0-9 and -, beginning with a letter, because a "
        "Service may get it."
    )


class SecretKeyRef(ApiModel):
    """One key of a Secret."""

    name: ObjectName = Field(description="Name of the Secret: a-z, 0-9, - and . only.")
    key: KeyName = Field(description="Key in the Secret's data: letters, digits, -, _ and . only.")


class ConfigMapKeyRef(ApiModel):
    """One key of a ConfigMap."""

    name: ObjectName = Field(description="Name of the ConfigMap: a-z, 0-9, - and . only.")
    key: KeyName = Field(description="Key in the ConfigMap's data.")


class AttemptRef(ApiModel):
    """An attempt of a FineTuneJob, in everything that its pod sends or receives."""

    namespace: Annotated[str, Field(max_length=63)] = Field(description="Namespace of the FineTuneJob.")
    name: Annotated[str, Field(max_length=253)] = Field(description="Name of the FineTuneJob.")
    uid: Annotated[str, Field(max_length=64)] = Field(description="UID of the FineTuneJob.")
    attempt: Annotated[int, Field(ge=1)] = Field(description="Which attempt it is.")


_WITHIN_LIMITS = (
    "!has(self.limits) || !has(self.requests) || self.requests.all(name, !(name in self.limits) || "
    "!isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || "
    "!quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))",
    "requests may not be greater than limits: such pods would be rejected",
    ".requests",
)


_DEVICES_IN_LIMITS = (
    "!has(self.requests) || self.requests.all(name, name.contains('kubernetes.io/') || "
    "!(name.contains('/') || name.startsWith('hugepages-')) || "
    "has(self.limits) && name in self.limits && (!isQuantity(string(self.requests[name])) || "
    "!isQuantity(string(self.limits[name])) || "
    "quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) == 0))",
    "devices and huge pages are asked for in limits: write them there, such as limits: {nvidia.com/gpu: 1}, and in "
    "requests the same or nothing",
    ".requests",
)
"""Resources that Kubernetes' own schedulers count (kubernetes.io/batch-cpu) are not devices: requests suffice."""


class ResourceRequirements(ApiModel):
    """Compute resources of a container, as in core/v1."""

    model_config = ConfigDict(json_schema_extra=rules(_WITHIN_LIMITS, _DEVICES_IN_LIMITS))
    limits: ResourceList | None = Field(
        None, description="Limits of the container, for example {memory: 16Gi, nvidia.com/gpu: 1}."
    )
    requests: ResourceList | None = Field(
        None,
        description="Requests of the container, which the scheduler reserves, for example {cpu: 500m, memory: 4Gi}.",
    )


NOT_RECONCILED = 0
"""Default status.observedGeneration, by the CRDs, of an object that was not reconciled yet."""


class Condition(ApiModel):
    """A condition as in meta/v1, read by kstatus, kubectl wait, Flux and Argo CD."""

    type: Annotated[str, Field(max_length=64)] = Field(description="Type of the condition.")
    status: Annotated[str, Field(max_length=8, pattern="^(True|False|Unknown)$")] = Field(
        description="True, False or Unknown."
    )
    reason: Annotated[str, Field(max_length=64)] = Field(description="One word for tools, from a closed set.")
    message: Annotated[str, Field(max_length=4096)] = Field("", description="A sentence for people.")
    last_transition_time: Timestamp = Field(description="When the status last changed, RFC 3339.")
    observed_generation: int | None = Field(None, description="Generation of the spec that the condition describes.")


class Display(ApiModel):
    """Columns of `kubectl get` that need text. Programs read the original fields."""

    base: Annotated[str, Field(max_length=256)] | None = Field(None, description="Base model without its owner.")
    method: Annotated[str, Field(max_length=16)] | None = Field(
        None, description="Method of tuning; empty if the provider decides."
    )
    progress: Annotated[str, Field(max_length=8)] | None = Field(
        None, description="Fraction of steps done, for example 53%."
    )
    train_loss: Annotated[str, Field(max_length=16)] | None = Field(None, description="Last training loss, rounded.")
    eval_loss: Annotated[str, Field(max_length=16)] | None = Field(None, description="Last validation loss, rounded.")


Conditions = Annotated[
    list[Condition],
    Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}),
]
