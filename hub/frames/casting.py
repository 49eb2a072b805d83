"""Casting: the values of one column in another dtype, and which of them do not survive."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hub.frames.schema import DTYPES, UNITS_PER_S

__all__ = ["Array", "Cast", "Mask", "cast_values", "zeros"]

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

_EXACT_IN_FLOAT = {"f4": 2**24, "f8": 2**53}


class Cast(NamedTuple):
    """A column after a cast: null slots hold the dtype's zero; `valid` None means no nulls; `lost` None means no loss."""

    values: Array
    valid: Mask | None
    lost: Mask | None


def cast_values(values: Array, valid: Mask | None, source: str, target: str) -> Cast:
    """Cast one column. A value survives when casting it back gives it again, bit for bit; the others become null.

    A null stays null. NaN becomes null in strings and bools (the only way pandas has to say "nothing here" in a column of
    floats), but is lost in integers: a column of integers that gets a NaN is a column of floats. bool is 0 and 1.
    """
    if source == target:
        return Cast(values, valid, None)
    present = np.ones(len(values), np.bool_) if valid is None else valid
    if DTYPES[source].kind == "f" and target in ("str", "bool"):
        present = present & ~np.isnan(values)
    if source in UNITS_PER_S and target in UNITS_PER_S:
        out, survives = _times(values, source, target)
    elif _is_number(source) and _is_number(target):
        out, survives = _numbers(values, source, target)
    else:
        out, survives = zeros(target, len(values)), np.zeros(len(values), np.bool_)
    kept = present & survives
    lost = present & ~survives
    if kept.all():
        return Cast(out, None, None)
    out = np.where(kept, out, zeros(target, len(values)))
    return Cast(out, kept, lost if lost.any() else None)


def zeros(dtype: str, n: int) -> Array:
    """`n` null slots: 0, False or the empty string."""
    return np.full(n, "", dtype=object) if dtype == "str" else np.zeros(n, DTYPES[dtype])


def _is_number(dtype: str) -> bool:
    return dtype != "str" and dtype not in UNITS_PER_S


def _times(values: Array, source: str, target: str) -> tuple[Array, Mask]:
    have, want = UNITS_PER_S[source], UNITS_PER_S[target]
    if have > want:
        out = values // (have // want)
        return out, out * (have // want) == values
    factor = want // have
    bound = np.iinfo(np.int64).max // factor
    survives = (values >= -bound) & (values <= bound)
    return np.where(survives, values, 0) * factor, survives


def _numbers(values: Array, source: str, target: str) -> tuple[Array, Mask]:
    wanted = DTYPES[target]
    kind = DTYPES[source].kind + wanted.kind
    if wanted.kind == "b":
        survives = (values == 0) | (values == 1)
    elif kind in ("ff", "bf", "bi", "bu"):
        survives = np.ones(len(values), np.bool_)
    elif wanted.kind == "f":
        bound = _EXACT_IN_FLOAT[target]
        survives = (values <= bound) & ((values >= -bound) if kind == "if" else True)
    else:
        survives = _within(values, wanted)
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.where(survives, values, 0).astype(wanted)
        if "f" in kind:
            back = out.astype(values.dtype)
            survives = survives & ((back == values) | ((back != back) & (values != values)))
            if wanted.kind != "f" and kind[0] == "f":
                survives &= ~((values == 0) & np.signbit(values))
    return out, survives


def _within(values: Array, wanted: np.dtype[Any]) -> Mask:
    """Which numbers lie in the range of an integer dtype. Compared as floats the upper end is open: 2**63 is no int64."""
    info = np.iinfo(wanted)
    if values.dtype.kind == "f":
        inside: Mask = (values >= float(info.min)) & (values < float(info.max + 1))
        return inside
    low = values >= info.min if values.dtype.kind == "i" else True
    high = values <= info.max if values.dtype.itemsize >= wanted.itemsize else True
    return np.ones(len(values), np.bool_) & low & high
