"""Suggests the existing name that an unknown one was probably meant to be."""

import difflib
import re
from collections.abc import Collection

_NEAR = 0.65
"""difflib's similarity from which a name counts as misspelt: `url` and `uri` do, `namespace` and `name` do not."""

_PART_OF_A_NAME = 3
"""Minimum length for a name that is a prefix or suffix of another, as `uri` of trackingURI."""


def plain(name: str) -> str:
    """A name without differences in spelling: `lora_r`, `lora-r` and `loraR` are the same."""
    return re.sub("[-_. ]", "", name).lower()


def nearest_name(name: str, names: Collection[str], needed: Collection[str] = ()) -> str | None:
    """The name that may be meant: a similar one, or one that begins or ends with the other, as `secretName` does.

    Args:
        name: what was written.
        names: the existing ones.
        needed: required ones: they are more likely than others.
    """
    by_lower = {one.lower(): one for one in names}
    sought = plain(name)
    longer = [one for one in names if plain(one).startswith(sought) or plain(one).endswith(sought)]
    if len(sought) >= _PART_OF_A_NAME and len(only := [one for one in longer if one in needed] or longer) == 1:
        return only[0]
    if near := difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=_NEAR):
        return by_lower[near[0]]
    ends = [one for one in names if len(one) > 1 and sought.endswith(plain(one))]
    return max(ends, key=len, default=None)
