"""How long ago something was, in words, as freqtrade says it ("28 minutes ago")."""

from __future__ import annotations

__all__ = ["ago"]

_DAY_S = 86_400
_MONTH_DAYS, _YEAR_DAYS = 30.5, 365


def ago(then_ms: int, now_ms: int) -> str:
    """`then_ms` seen from `now_ms`; a moment that is still to come is "now"."""
    seconds = max((now_ms - then_ms) // 1000, 0)
    return f"{_span(seconds)} ago" if seconds else "now"


def _span(seconds: int) -> str:
    # The rounding is the nearest whole unit, halves to the even one: so 90 seconds are 2 minutes, and 150 are too.
    if seconds < 60:
        return _some(seconds, "second")
    if (minutes := round(seconds / 60)) < 60:
        return _some(minutes, "minute")
    if (hours := round(seconds / 3600)) < 24:
        return _some(hours, "hour", "an")
    return _long_span(max(seconds // _DAY_S, 1))


def _long_span(days: int) -> str:
    if days >= 2 * _YEAR_DAYS:
        return _some(round(days / _YEAR_DAYS), "year")
    years, rest = divmod(days, _YEAR_DAYS)
    months = round(rest / _MONTH_DAYS)
    if months == 12:
        return _some(years + 1, "year")
    if not years:
        return _some(months, "month") if months else _some(days, "day")
    if not rest:
        return "a year"
    return f"1 year, {_some(months, 'month', '1') if months else _some(rest, 'day', '1')}"


def _some(count: int, unit: str, one: str = "a") -> str:
    return f"{one} {unit}" if count == 1 else f"{count} {unit}s"
