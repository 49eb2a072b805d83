"""Bans: pairs that signals may not enter, by a lock for a time or by the blacklist for good.

A lock holds in candle time, from when it is made until `until_ms`; what is over is deleted. The blacklist is that of the settings
with the changes that people made since, which are kept in the database: entries added, and entries of the settings taken off. Its
entries are patterns (`patterns`). Both are for signals: a person may enter any pair, as in freqtrade.
"""

from __future__ import annotations

from collections.abc import Iterable

from consumer.bot.database import storable
from consumer.bot.fills import iso
from consumer.bot.journal import Journal
from consumer.bot.models import BlacklistChange, Lock
from consumer.bot.patterns import BadPattern, Pattern
from consumer.bot.records import BlacklistRecord, LockRecord
from consumer.bot.settings import PaperSettings
from hub.protocol.botapi import BotError

__all__ = ["Bans"]

MOST_LOCKS, MOST_ENTRIES, LONGEST_TEXT = 1000, 1000, 255
LATEST_MS = 253_402_300_799_999
"""The last moment of the year 9999, after which no date can be written."""
_ANY = "*"


class Bans:
    """Locks and the blacklist. Not thread-safe; changes the journal and leaves the commit to the book."""

    def __init__(self, journal: Journal, settings: PaperSettings) -> None:
        self._journal = journal
        self._configured = settings.pair_blacklist
        self._patterns: dict[str, Pattern] = {}
        self._verdicts: dict[str, bool] = {}
        self._arrange({})

    def forbids(self, pair: str, date_ms: int) -> bool:
        """Whether a signal may not enter `pair` at `date_ms`."""
        return self.locked(pair, date_ms) or self.blacklisted(pair)

    def locked(self, pair: str, date_ms: int) -> bool:
        """Whether a lock of the pair, or of all pairs, holds for purchases."""
        return any(
            lock.pair in (pair, _ANY) and lock.side in ("long", _ANY) and lock.until_ms > date_ms
            for lock in self._journal.locks.values()
        )

    def blacklisted(self, pair: str) -> bool:
        """Whether an entry of the blacklist matches."""
        verdict = self._verdicts.get(pair)
        if verdict is None:
            if len(self._verdicts) >= 10_000:
                self._verdicts.clear()
            verdict = any(pattern.matches(pair) for pattern in self._patterns.values())
            self._verdicts[pair] = verdict
        return verdict

    def lock(self, pair: str, until_ms: int, side: str, reason: str | None) -> LockRecord:
        """Lock a pair (or `*`) until `until_ms`.

        Raises:
            BotError: a side, name or time that cannot be, or too many locks.
        """
        journal = self._journal
        if side not in ("long", "short", _ANY):
            raise BotError(f"expected long, short or * as the side of a lock, got {side[:40]!r}")
        texts = (pair, reason or "")
        if not pair or max(map(len, texts)) > LONGEST_TEXT:
            raise BotError(f"expected a pair and a reason of at most {LONGEST_TEXT} characters")
        if len(journal.locks) >= MOST_LOCKS:
            raise BotError(f"there are {MOST_LOCKS} locks already")
        if not all(map(storable, texts)):
            raise BotError("expected a pair and a reason without a null character")
        now = journal.now_ms
        if not (now or 0) < until_ms <= LATEST_MS:
            raise BotError(
                "the end of a lock must be in the future, in candle time, and before the year 10000"
            )
        number = max(journal.locks, default=0) + 1
        locked_ms = journal.wallet.created_ms if now is None else now
        lock = Lock(id=number, pair=pair, side=side, locked_ms=locked_ms, until_ms=until_ms, reason=reason)
        journal.session.add(lock)
        journal.locks[number] = lock
        why = f": {reason}" if reason else ""
        until = iso(until_ms)[:16].replace("T", " ")
        journal.note(f"{pair} is locked by a person ({side}) until {until}{why}")
        return LockRecord(
            id=number, pair=pair, side=side, locked_ms=locked_ms, until_ms=until_ms, reason=reason
        )

    def unlock(self, locks: Iterable[int]) -> None:
        """Take locks off, as far as they are there."""
        for number in list(locks):
            lock = self._journal.locks.pop(number, None)
            if lock is not None:
                self._journal.drop(lock)
                self._journal.note(f"lock {number} of {lock.pair} is taken off by a person")

    def locks_of(self, pair: str) -> list[int]:
        """The numbers of the locks of exactly this pair (or `*`)."""
        return [lock.id for lock in self._journal.locks.values() if lock.pair == pair]

    def blacklist(self, known: Iterable[str], errors: dict[str, str] | None = None) -> BlacklistRecord:
        """The blacklist, and which of the `known` pairs it matches."""
        pairs = tuple(pair for pair in known if self.blacklisted(pair))
        return BlacklistRecord(entries=tuple(self._patterns), pairs=pairs, errors=errors or {})

    def add(self, entries: Iterable[str]) -> dict[str, str]:
        """Add entries to the blacklist; returns freqtrade's reason for each that was refused."""
        errors: dict[str, str] = {}
        patterns = dict(self._patterns)
        for entry in entries:
            shown = _shown(entry)
            if entry in patterns:
                errors[shown] = f"Pair {shown} already in pairlist."
            elif len(patterns) >= MOST_ENTRIES:
                errors[shown] = f"there are {MOST_ENTRIES} entries already"
            elif (pattern := _pattern(entry)) is None:
                errors[shown] = f"Pair {shown} is not a valid wildcard."
            else:
                patterns[entry] = pattern
                self._change(entry, added=entry not in self._configured)
        self._arrange(patterns)
        return errors

    def remove(self, entries: Iterable[str]) -> dict[str, str]:
        """Take entries off the blacklist; returns freqtrade's reason for each that was refused."""
        errors: dict[str, str] = {}
        patterns = dict(self._patterns)
        for entry in entries:
            if patterns.pop(entry, None) is not None:
                self._change(entry, added=entry not in self._configured, off=True)
            else:
                shown = _shown(entry)
                errors[shown] = f"Pair {shown} is not in the current blacklist."
        self._arrange(patterns)
        return errors

    def _change(self, entry: str, *, added: bool, off: bool = False) -> None:
        """Put an entry on or `off`; a row of the journal tells where that differs from the settings."""
        self._journal.note(f"{entry} is {'taken off' if off else 'put on'} the blacklist by a person")
        changes = self._journal.blacklist
        change = changes.pop(entry, None)
        if change is not None:
            self._journal.drop(change)
        if added != off:
            if change is not None:
                # Else the row would be written before the one of the same entry is gone.
                self._journal.session.flush()
            number = max((row.number for row in changes.values()), default=0) + 1
            changes[entry] = BlacklistChange(entry=entry, added=added, number=number)
            self._journal.session.add(changes[entry])

    def _arrange(self, compiled: dict[str, Pattern]) -> None:
        """The entries that hold now, in their order; those that are `compiled` are not compiled again."""
        changes = self._journal.blacklist.values()
        removed = {change.entry for change in changes if not change.added}
        entries = [entry for entry in self._configured if entry not in removed]
        entries += [change.entry for change in changes if change.added]
        self._patterns = {entry: compiled.get(entry) or Pattern(entry) for entry in entries}
        self._verdicts = {}


def _shown(entry: str) -> str:
    return entry[:LONGEST_TEXT].encode(errors="replace").decode()


def _pattern(entry: str) -> Pattern | None:
    try:
        return Pattern(entry) if storable(entry) else None
    except BadPattern:
        return None
