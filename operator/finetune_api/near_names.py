"""Which of the names that there are was probably meant by one that is none of them."""

import difflib
import re
from collections.abc import Collection

_NEAR = 0.65
"""How alike names are that may be one misspelt, as difflib counts: `url` and `uri` are, `namespace` and `name` not."""

_PART_OF_A_NAME = 3
"""Letters of a name with which another may begin or end, as `uri` ends trackingURI."""


def plain(name: str) -> str:
    """A name without what spellings differ in: `lora_r`, `lora-r` and `loraR` are one."""
    return re.sub("[-_. ]", "", name).lower()


def like(name: str, names: Collection[str], needed: Collection[str] = ()) -> str | None:
    """The name that may be meant: one that is alike, or one that begins or ends with the other, as `secretName` does.

    Args:
        name: what was written.
        names: those that there are.
        needed: such as have to be there: of several they are likelier.
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
