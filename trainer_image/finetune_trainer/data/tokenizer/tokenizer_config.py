"""Values in a base model's tokenizer_config.json on which transformers fails when it loads the tokenizer.

Works without transformers, which `check` does not have. Values that transformers tolerates, such as an unknown class,
are accepted.
"""

from collections.abc import Callable, Mapping
from typing import Any

from finetune_api.reasons import Reason
from finetune_trainer.errors import TrainerError

STEP = (
    "Correct it there, or have the model put into the cache again (finetune-trainer cache), and try again (in a "
    "cluster by spec.retryNonce)."
)
"""Next step for a broken file of the tokenizer or the model."""


def _are_tokens(value: Any) -> bool:
    if value is None or isinstance(value, Mapping):
        return value is None or all(map(_is_token, value.values()))
    return isinstance(value, list) and all(map(_is_token, value))


def _is_token(value: Any) -> bool:
    whole = isinstance(value, Mapping) and value.get("__type") == "AddedToken" and "content" in value
    return isinstance(value, str) or whole


_Rule = tuple[Callable[[Any], bool], str]
_SIDE: _Rule = (lambda value: value in ("left", "right"), 'neither "left" nor "right"')
_TOKENS: _Rule = (_are_tokens, 'no list of tokens, as text or objects with "__type": "AddedToken"')
_RULES: Mapping[str, _Rule] = {
    "added_tokens_decoder": (lambda value: isinstance(value, Mapping), "no object"),
    "additional_special_tokens": _TOKENS,
    "auto_map": (
        lambda value: isinstance(value, Mapping | list) and value != [],
        "neither an object nor a list of names",
    ),
    "extra_special_tokens": _TOKENS,
    "padding_side": _SIDE,
    "tokenizer_class": (lambda value: isinstance(value, str | None), "no text"),
    "truncation_side": _SIDE,
}
"""Per field: whether a value is valid, and how messages describe an invalid one."""


def require_valid(config: Mapping[str, Any], named: Mapping[str, Any]) -> None:
    """Refuse invalid values. `named` is the config updated by an older special_tokens_map.json; its values are exempt.

    Raises:
        TrainerError: ModelUnusable.
    """
    for name, (is_right, otherwise) in _RULES.items():
        if name in config and named.get(name) is config[name] and not is_right(config[name]):
            message = f"tokenizer_config.json of the base model: {name} is {otherwise}"
            raise TrainerError(Reason.MODEL_UNUSABLE, message, STEP)
