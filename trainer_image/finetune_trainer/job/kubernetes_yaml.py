"""YAML as Kubernetes parses it, which differs from PyYAML in numbers, booleans, keys and empty values."""

import re
from typing import Any

import yaml

from finetune_api.trainer import LARGEST_NUMBER

_SURROGATE = re.compile("[\ud800-\udfff]")
_RESOLVED_BY_KUBERNETES = ("timestamp", "float", "int", "bool", "value")
"""Types that kubectl recognizes by other patterns than PyYAML, or not at all."""


def is_octal(number: str) -> bool:
    """Whether a leading zero makes it octal."""
    return re.fullmatch("[-+]?0_*[0-7][0-7_]*", number) is not None


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes parses it: no duplicate keys, nulls are dropped, dates are text, 2e-4 is a number.

    Produces only JSON types: text, numbers, true, false, null, lists and objects with text keys.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - how PyYAML declares them
        first: [(tag, pattern) for tag, pattern in found if tag.rpartition(":")[2] not in _RESOLVED_BY_KUBERNETES]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    is_json = False
    bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}  # noqa: RUF012 - as above
    yaml_constructors = {  # noqa: RUF012 - as above
        tag: make
        for tag, make in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.rpartition(":")[2] in ("null", "bool", "int", "float", "str", "seq", "map")
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Fields by their names, which must be unique; those without a value are dropped."""
        known: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                problem = "a key is not text"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in known and key.value != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} occurs twice", key.start_mark)
            known.add(key.value)
            if key.tag.endswith(":bool"):  # y, n, on, off: keep the spelling
                key.tag = "tag:yaml.org,2002:str"
        for key, value in node.value if node.flow_style else ():
            if value.tag.endswith(":null") and (wrong := _problem_without_value(key, value)):
                raise yaml.constructor.ConstructorError(None, None, wrong, key.start_mark)
        made = super().construct_mapping(node, deep)
        return {str(key): value for key, value in made.items() if value is not None}

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        """Text without lone surrogates: JSON escapes some characters as a pair, YAML does not."""
        node = super().compose_scalar_node(anchor)
        if _SURROGATE.search(node.value):
            if not self.is_json:
                problem = "a \\u escape is half of a character: write the character itself"
                raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
            node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return node

    def construct_whole_number(self, node: yaml.ScalarNode) -> int | float:
        """A 64-bit integer. A leading zero means octal if it can."""
        written = node.value.replace("_", "").lower()
        base = {"0x": 16, "0b": 2, "0o": 8}.get(written.lstrip("+-")[:2], 8 if is_octal(written) else 10)
        number = int(written, base)
        return number if -LARGEST_NUMBER <= number < LARGEST_NUMBER else float(number)

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """The text as written."""
        return str(node.value)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """A number with a fraction or exponent; an integer if its value is one, as in JSON."""
        number = super().construct_yaml_float(node)
        return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _problem_without_value(key: yaml.Node, value: yaml.Node) -> str | None:
    """What is wrong with a name in braces without a value, which kubectl would silently drop."""
    if key.tag.endswith((":int", ":float")):
        return f"{key.value} stands alone: is the comma before it one within a number?"
    between = (key.end_mark.buffer or "")[key.end_mark.pointer : value.start_mark.pointer]
    if ":" in between:  # an empty value after a colon may be intended
        return None
    name, colon, rest = key.value.partition(":")
    meant = f"write {name}: {rest}, with a space after the colon" if colon else "a colon and a value must follow it"
    return f"{key.value} has no value, and is left out: {meant}"


_EXACT = 1 << 53
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
_INTEGER = re.compile(r"[-+]?(0b[01_]+|0[oO][0-7_]+|0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)$")
_BOOLEAN = re.compile("(y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$")
Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", _BOOLEAN, list("yYnNtTfFoO"))
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_number)
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_whole_number)
Loader.add_constructor("tag:yaml.org,2002:merge", Loader.construct_text)
