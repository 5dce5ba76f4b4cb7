"""Names of base models for this project's own trainer, on a hub and in a model cache."""

import re

_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MOST_PARTS, _PARTS_ON_A_HUB = 3, 2
_OF_A_HUB = re.compile(r"(?:www\.)?(?:huggingface|hf)\.co/([^/]+/[^/]+)(?:/.*)?")


def is_safe_name(name: str) -> bool:
    """Whether a model's name is one to three path segments of letters, digits, `.`, `_` and `-`, none with `..`."""
    segments = name.split("/")
    return len(segments) <= _MOST_PARTS and all(_SEGMENT.fullmatch(part) and ".." not in part for part in segments)


def may_be_on_a_hub(name: str) -> bool:
    """Whether a model on a hub can have this name: NAME or OWNER/NAME."""
    return name.count("/") < _PARTS_ON_A_HUB


def step_for(name: str) -> str:
    """What to write instead of an invalid model name. Often a revision or a tag was appended."""
    if page := _OF_A_HUB.fullmatch(name):
        return f"Write {page[1]}, without the hub's host."
    step = "Write ORG/NAME with letters, digits, '.', '_' and '-'."
    if name != (without := re.split("[@:]", name)[0]) and is_safe_name(without):
        step += (
            " A revision is chosen where a model is put into the cache: finetune-trainer cache NAME --revision COMMIT."
        )
    return step
