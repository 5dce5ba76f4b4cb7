"""Kubernetes quantities as numbers: 500m, 16Gi, 1e3."""

import math
import re

LEAST_SIZE = 2**16
"""Bytes: a smaller memory size is a number whose unit was forgotten."""

MOST_CORES = 100_000
"""More CPU than this was written with a unit of memory: 4000M means four billion cores, 4000m was intended."""

LARGEST_NODE = 64 * 2**40
"""Bytes of memory: no machine known today has more, though one may come."""

_MOST = 2.0**63
"""Larger numbers than the API server can represent."""

_UNITS = {"": 1.0, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_UNITS |= {f"{prefix}i": 1024.0 ** (power + 1) for power, prefix in enumerate("KMGTPE")}
_QUANTITY = re.compile(r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,3})|([numkMGTPE]|[KMGTPE]i)?)")


def amount(quantity: str | float) -> float | None:
    """The quantity as a number, in bytes for memory; None if it is not a quantity, negative, or not a finite float."""
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        return None
    number, exponent, unit = found.groups()
    value = float(f"{number}e{exponent}") if exponent else float(number) * _UNITS[unit or ""]
    return value if math.isfinite(value) else None


_SPOKEN = re.compile(r"([0-9]+(?:[.,][0-9]+)?) *([kmgtpe])i?b?", re.IGNORECASE)


def nearest(text: object) -> str | None:
    """The quantity meant by 16GB, 16gi or "16 Gi"; None if unknown."""
    found = _SPOKEN.fullmatch(str(text).strip())
    return f"{found[1].replace(',', '.')}{found[2].upper()}i" if found else None


def is_counted(quantity: str | float) -> bool:
    """Whether it is a whole number, as for GPUs; False if it is not a quantity."""
    found = amount(quantity)
    return found is not None and found.is_integer() and found < _MOST and str(quantity)[-1] not in "num"


def nearest_cores(text: object) -> str | None:
    """The amount of CPU meant by 4000M; None if unknown."""
    written = str(text)
    return f"{written[:-1]}m" if written.endswith("M") and written[:-1].isdecimal() else None
