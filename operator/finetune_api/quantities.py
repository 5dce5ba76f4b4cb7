"""Kubernetes quantities as numbers: 500m, 16Gi, 1e3."""

import math
import re

LEAST_SIZE = 2**16
"""Bytes: a size of memory below it is a number whose unit was forgotten."""

MOST_CORES = 100_000
"""More CPU than this is a number with a unit of memory: 4000M is four billion cores, and 4000m is meant."""

LARGEST_NODE = 64 * 2**40
"""Bytes of memory: more than this no machine has that is known today, though one may come."""

_MOST = 2.0**63
"""Beyond what the API server can count."""

_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{prefix}i": 1024.0 ** (power + 1) for power, prefix in enumerate("KMGTPE")}
_QUANTITY = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")


def amount(quantity: str | float) -> float | None:
    """What the quantity is in its own unit, bytes for memory; None where it is none, below zero or no float."""
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        return None
    number, exponent, unit = found.groups()
    value = float(f"{number}e{exponent}") if exponent else float(number) * _UNITS[unit or ""]
    return value if math.isfinite(value) else None


_SPOKEN = re.compile(r"([0-9]+(?:[.,][0-9]+)?) *([kmgtpe])i?b?", re.IGNORECASE)


def nearest(text: object) -> str | None:
    """The quantity that is meant by 16GB, 16gi or "16 Gi"; None where that is not known."""
    found = _SPOKEN.fullmatch(str(text).strip())
    return f"{found[1].replace(',', '.')}{found[2].upper()}i" if found else None


def is_counted(quantity: str | float) -> bool:
    """Whether it is a number of whole things, such as GPUs; what is no quantity is none."""
    found = amount(quantity)
    return found is not None and found.is_integer() and found < _MOST and str(quantity)[-1] not in "num"


def nearest_cores(text: object) -> str | None:
    """The amount of CPU that is meant by 4000M; None where that is not known."""
    written = str(text)
    return f"{written[:-1]}m" if written.endswith("M") and written[:-1].isdecimal() else None
