"""What figures are to reach: a target compares two figures of one round, and counts by the median over the rounds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from benchmarks.sessions import Drive, Figures

__all__ = ["Bound", "Figure", "Key", "Measurable", "Pair", "Rounds", "Target", "Verdict", "median_of"]


class Measurable(Protocol):
    """Something that is started anew for each round and measured in one or more ways."""

    @property
    def name(self) -> str:
        """In tables."""

    @property
    def block(self) -> object:
        """Those of one block take turns."""

    @property
    def descriptors(self) -> int:
        """How many open files a process of it wants."""

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None."""

    def measure(self, drives: Sequence[Drive], directory: Path) -> Mapping[Drive, Figures]:
        """The figures of each drive.

        Raises:
            RuntimeError: it failed; the text says how.
        """


@dataclass(frozen=True)
class Key:
    """What is measured, and how."""

    setup: Measurable
    drive: Drive


@dataclass(frozen=True)
class Figure:
    """One figure of one measurement."""

    key: Key
    name: str


Rounds = Sequence[Mapping[Key, Figures]]
"""What each round gave; what failed in it is not there."""


def median_of(rounds: Rounds, figure: Figure) -> float | None:
    """Of the rounds that have it."""
    values = [found[figure.key][figure.name] for found in rounds if figure.key in found]
    return statistics.median(values) if values else None


@dataclass(frozen=True)
class Pair:
    """Two figures to compare; without a base ours stands for itself."""

    ours: Figure
    base: Figure | None = None

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Those that there are."""
        return (self.ours,) if self.base is None else (self.ours, self.base)


@dataclass(frozen=True)
class Bound:
    """A limit of what comes of a pair.

    `ratio`: ours over the base; `times`: the base over ours; `over`: ours minus the base; `value`: ours. With `times` and
    `at_least` more is better. `scale` and `unit` are for showing it.
    """

    how: Literal["ratio", "times", "over", "value"]
    limit: float
    stretch: float | None = None
    at_least: bool = False
    scale: float = 1.0
    unit: str = ""

    def values(self, pair: Pair, rounds: Rounds) -> list[float]:
        """Of every round that has both figures."""
        return [
            self._value(*(found[figure.key][figure.name] for figure in pair.figures))
            for found in rounds
            if all(figure.key in found for figure in pair.figures)
        ]

    def _value(self, ours: float, base: float = 0.0) -> float:
        if self.how == "ratio":
            return ours / base
        if self.how == "times":
            return base / ours
        return (ours - base if self.how == "over" else ours) * self.scale

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is on the right side."""
        return value >= limit if self.at_least or self.how == "times" else value <= limit

    def shown(self, value: float) -> str:
        """A value for people."""
        digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
        if self.how in ("ratio", "times"):
            return f"{value:.{digits}f} x"
        return f"{value:{'+' if self.how == 'over' else ''},.{digits}f} {self.unit}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """Of one target: the figures, said, and what they come to."""

    figures: str
    word: str
    held: bool | None
    """None: it was not measured."""


@dataclass(frozen=True)
class Target:
    """`text` is what is wanted; each variant is a pair by its name, and of `bounds` any is enough. The worst variant decides."""

    what: str
    text: str
    variants: Mapping[str, Pair]
    bounds: tuple[Bound, ...]

    def figures(self) -> Iterator[Figure]:
        """What has to be measured."""
        for pair in self.variants.values():
            yield from pair.figures

    def verdict(self, rounds: Rounds) -> Verdict:
        """What the rounds come to."""
        told: list[str] = []
        held: list[bool] = []
        stretched: list[bool] = []
        for name, pair in self.variants.items():
            medians = [
                (bound, statistics.median(values))
                for bound in self.bounds
                if (values := bound.values(pair, rounds))
            ]
            if medians:
                said = " or ".join(bound.shown(value) for bound, value in medians)
                told.append(f"{name} {said}" if name else said)
                held.append(any(bound.holds(value, bound.limit) for bound, value in medians))
                stretched.append(
                    any(
                        bound.stretch is not None and bound.holds(value, bound.stretch)
                        for bound, value in medians
                    )
                )
        if not held:
            return Verdict("", "not measured", None)
        word = "missed" if not all(held) else "met, with the stretch" if all(stretched) else "met"
        return Verdict(", ".join(told), word, all(held))
