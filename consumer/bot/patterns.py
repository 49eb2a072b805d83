"""Patterns of a blacklist: regular expressions over the whole name of a pair, matched in time linear in the name.

Python's own `re` may take for ever on a pattern such as `(A+)+X`, and patterns come from people over REST. So they become a
non-deterministic automaton here, all of whose states are followed at once (Thompson 1968). What one character matches is asked of
`re`. The case of letters makes no difference, as in freqtrade. A pattern with one choice, or two that are not in
one another, such as `.*UP/.*`, goes to `re` as a whole, which is far faster: at worst it tries each two places of the name.

Syntax: characters, `.`, escapes such as `\\d`, `[...]`, groups `(...)` and `(?:...)`, `|`, the quantifiers `*` `+` `?` `{m}` `{m,}`
`{m,n}` (a lazy `?` behind one changes nothing), and `^` and `$` at the ends of the whole. References and lookarounds are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["BadPattern", "Pattern"]

LONGEST_PATTERN, LONGEST_NAME, MOST_STATES, DEEPEST = 200, 200, 500, 20

_QUANTIFIER = re.compile(r"(?:([*+?])|\{(\d{1,4})(,?)(\d{0,4})\})\??")
_ONE = re.compile(r"\\[dDsSwW]|\\[^a-zA-Z0-9]|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[()|*+?{}^$]", re.DOTALL)


class BadPattern(ValueError):
    """Not a pattern that can be used."""


@dataclass(frozen=True, slots=True)
class _One:
    test: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class _Choice:
    """One of several sequences."""

    sequences: list[list[_Node]]


@dataclass(frozen=True, slots=True)
class _Repeat:
    """`high` None: any number of times."""

    node: _Node
    low: int
    high: int | None


_Node = _One | _Choice | _Repeat


class Pattern:
    """One pattern.

    Raises:
        BadPattern: it is no regular expression, has parts that are not supported, or is too long.
    """

    def __init__(self, text: str) -> None:
        if not 1 <= len(text) <= LONGEST_PATTERN:
            raise BadPattern(f"expected 1 to {LONGEST_PATTERN} characters")
        # A state tests one character and goes on to the next one, or goes on to several without one. State 0 is the end.
        self._tests: list[re.Pattern[str] | None] = [None]
        self._next: list[list[int]] = [[]]
        parser = _Parser(text)
        self._start = self._build(parser.parse(), 0)
        self._whole = parser.whole

    def matches(self, name: str) -> bool:
        """Whether the whole of `name` matches; a name of over LONGEST_NAME characters never does."""
        if len(name) > LONGEST_NAME:
            return False
        if self._whole is not None:
            return self._whole.fullmatch(name) is not None
        states = self._reach([self._start])
        for character in name:
            states = self._reach([self._next[state][0] for state in states if self._takes(state, character)])
        return 0 in states

    def _takes(self, state: int, character: str) -> bool:
        test = self._tests[state]
        return test is not None and test.fullmatch(character) is not None

    def _reach(self, waiting: list[int]) -> set[int]:
        found: set[int] = set()
        while waiting:
            state = waiting.pop()
            if state not in found:
                found.add(state)
                if self._tests[state] is None:
                    waiting.extend(self._next[state])
        return found

    def _add(self, test: re.Pattern[str] | None, following: list[int]) -> int:
        if len(self._tests) >= MOST_STATES:
            raise BadPattern("too many repetitions")
        self._tests.append(test)
        self._next.append(following)
        return len(self._tests) - 1

    def _build(self, node: _Node, after: int) -> int:
        """Add the states of `node`, which go on to the state `after`; returns the first one."""
        match node:
            case _One(test):
                return self._add(test, [after])
            case _Choice(sequences):
                return self._add(None, [self._build_all(sequence, after) for sequence in sequences])
            case _Repeat(part, low, high):
                return self._build_repeat(part, low, high, after)

    def _build_all(self, nodes: list[_Node], after: int) -> int:
        for node in reversed(nodes):
            after = self._build(node, after)
        return after

    def _build_repeat(self, part: _Node, low: int, high: int | None, after: int) -> int:
        end = after
        if high is None:
            after = self._add(None, [end])
            self._next[after].append(self._build(part, after))
        else:
            for _ in range(high - low):
                after = self._add(None, [end, self._build(part, after)])
        for _ in range(low):
            after = self._build(part, after)
        return after


class _Parser:
    """Reads a pattern by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text.removeprefix("^")
        if self._text.endswith("$") and not self._text.endswith("\\$"):
            self._text = self._text[:-1]
        self._at = 0
        self._choices = 0

    def parse(self) -> _Node:
        choice = self._choice(0)
        if self._at < len(self._text):
            raise self._bad()
        return choice

    @property
    def whole(self) -> re.Pattern[str] | None:
        """What was parsed, for `re`, when there are few ways to match it: quantifiers and `|` are choices."""
        few = self._choices <= 1 or (self._choices == 2 and "(" not in self._text)
        return re.compile(self._text, re.IGNORECASE | re.DOTALL) if few else None

    def _bad(self) -> BadPattern:
        return BadPattern(f"not understood from {self._text[self._at : self._at + 20]!r} on")

    def _takes(self, text: str) -> bool:
        taken = self._text.startswith(text, self._at)
        self._at += len(text) * taken
        return taken

    def _choice(self, depth: int) -> _Choice:
        if depth > DEEPEST:
            raise BadPattern("too many groups in one another")
        sequences = [self._sequence(depth)]
        while self._takes("|"):
            self._choices += 1
            sequences.append(self._sequence(depth))
        return _Choice(sequences)

    def _sequence(self, depth: int) -> list[_Node]:
        nodes: list[_Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            nodes.append(self._repeated(self._single(depth)))
        return nodes

    def _single(self, depth: int) -> _Node:
        if self._takes("("):
            if not self._takes("?:") and self._takes("?"):
                raise self._bad()
            choice = self._choice(depth + 1)
            if not self._takes(")"):
                raise self._bad()
            return choice
        found = _ONE.match(self._text, self._at)
        if found is None:
            raise self._bad()
        self._at = found.end()
        try:
            return _One(re.compile(found.group(), re.IGNORECASE | re.DOTALL))
        except re.error as error:
            raise BadPattern(str(error)) from None

    def _repeated(self, node: _Node) -> _Node:
        found = _QUANTIFIER.match(self._text, self._at)
        if found is None:
            return node
        self._at = found.end()
        self._choices += 1
        sign, low, comma, high = found.groups()
        if sign is not None:
            return _Repeat(node, int(sign == "+"), 1 if sign == "?" else None)
        least = int(low)
        most = least if not comma else int(high) if high else None
        if most is not None and most < least:
            raise BadPattern("a repetition's most is under its least")
        return _Repeat(node, least, most)
