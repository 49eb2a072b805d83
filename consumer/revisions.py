"""What a consumer holds of each dataframe key, and what it has to ask for: revisions, snapshots in parts, schemas.

Theory of operation
===================

`rev: [epoch, prev, n]` claims: who holds the key at a revision in [prev, n), or at n, and applies this message holds
revision n. Rows are absolute and keyed by date, so applying some of them twice does no harm. A message that a holder cannot
use (`prev` above what it holds, another rev epoch, nothing held yet) is dropped and a snapshot is asked for; meanwhile the old
rows are kept and marked stale. A snapshot comes in parts `[i, of]`, counted from 1, of whole rows; it replaces everything when
its last part is in.

Over a reconnect what is held is kept: the hub is told the revisions, and sends what changed since, or a snapshot.

Asking is bounded: one request is out per key, it is repeated after 15 s, 30 s, … 5 min as long as no snapshot came, and a key
whose snapshot cannot be read is left alone until the hub numbers it anew or sends another schema.

Invariants
==========

1. Where `have` is set, the rows applied so far are the producer's at revision `have` of `epoch`.
2. `have` moves only by a message whose claim covers it, or by a snapshot that is not older.
3. Parts of one assembly have one rev epoch and n, came in order without a hole, and together hold at most `limit_bytes`.
4. A key that is not current is asked for, or unreadable, or not wanted by the hub.

Source: wire-v2 §6, "Receiver"; the model shared/spec/model, ported with its broken variants to tests/consumer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hub.frames import v2
from hub.frames.columns import Columns, Schema
from hub.protocol.envelope import Broadcast, Rev
from hub.protocol.errors import BadFrame
from hub.protocol.messages import FrameKey

__all__ = ["Applied", "Held", "Revisions", "Unreadable", "WireKey"]

WireKey = tuple[str, FrameKey]
"""A bot and the key of one of its frames."""

FIRST_ASK_AGAIN_S = 15.0
MAX_ASK_AGAIN_S = 300.0
MAX_SCHEMAS = 4096
MAX_RESUMED = 10_000
"""Keys in a request, as a hub takes them."""
_KEY_BYTES = 64


@dataclass(frozen=True, slots=True)
class Applied:
    """Rows to take over; with `snapshot` they are the whole window."""

    columns: Columns
    snapshot: bool
    n: int
    la_ms: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """Nothing to take over. With `current` what is held is what the hub has; else it is stale until a snapshot comes."""

    current: bool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The key cannot be read; `problem` says why. It is not asked for."""

    problem: str


@dataclass(slots=True)
class _Assembly:
    rev_epoch: str
    n: int
    of: int
    tables: list[Columns]
    bytes: int


@dataclass(slots=True)
class _Key:
    epoch: str = ""
    have: int | None = None
    assembly: _Assembly | None = None
    unreadable: tuple[str, str] | None = None
    """(rev epoch, schema id) at which it was given up."""


@dataclass(slots=True)
class _Ask:
    at: float
    attempts: int = 0


class Revisions:
    """All dataframe keys of one connection. `wire` is how frames are encoded; `limit_bytes` bounds unfinished snapshots."""

    def __init__(self, wire: Literal["msgpack", "json"], *, limit_bytes: int = 256 * 1024 * 1024) -> None:
        self.limit_bytes = limit_bytes
        self._wire = wire
        self._keys: dict[WireKey, _Key] = {}
        self._schemas: dict[str, Schema | str] = {}
        self._asks: dict[WireKey, _Ask] = {}
        self.assembly_bytes = 0

    # --- a connection

    def forget_connection(self) -> None:
        """The connection ended: schemas were its own, snapshots under way start again."""
        self._schemas.clear()
        self._asks.clear()
        for key in self._keys.values():
            self._drop_assembly(key)

    def schema(self, schema_id: str, data: Any) -> str | None:
        """A hub.schema notice. Returns what is wrong with it, if anything: keys that use it are unreadable then."""
        problem: str | None = None
        try:
            schema = Schema.from_data(data)
            if schema.id != schema_id:
                problem = f"schema {schema_id[:16]!r} does not match its columns"
        except BadFrame as error:
            problem = str(error)
        if schema_id in self._schemas or len(self._schemas) < MAX_SCHEMAS:
            self._schemas[schema_id] = schema if problem is None else problem
        return problem

    # --- asking

    def ask(self, key: WireKey, now: float, *, after_s: float = 0.0) -> None:
        """Ask for a snapshot of `key`, unless that is under way."""
        if key not in self._asks:
            self._asks[key] = _Ask(at=now + after_s)

    def expect_held(self, now: float) -> None:
        """The hub sends snapshots or, of what it was told to be held, changes of all keys unasked now; ask for what is held should
        neither come."""
        for key, held in self._keys.items():
            if held.have is not None and key not in self._asks:
                self._asks[key] = _Ask(at=now + 2 * FIRST_ASK_AGAIN_S, attempts=1)

    def held(self, limit_bytes: int) -> list[tuple[WireKey, str, int]]:
        """Keys with the rev epoch and revision that is held, for a resume; as many as fit into a request of about `limit_bytes`."""
        found: list[tuple[WireKey, str, int]] = []
        for key, held in self._keys.items():
            if held.have is None:
                continue
            bot, of = key
            texts = (bot, of.pair, of.timeframe, of.candle_type, held.epoch)
            limit_bytes -= sum(len(text.encode()) for text in texts) + _KEY_BYTES
            if limit_bytes < 0 or len(found) == MAX_RESUMED:
                break
            found.append((key, held.epoch, held.have))
        return found

    @property
    def asks(self) -> bool:
        """Whether there are keys to ask for, now or later."""
        return bool(self._asks)

    @property
    def deadline(self) -> float | None:
        """When `due` has something."""
        if not self._asks:
            return None
        return min((ask.at for ask in self._asks.values()), default=None)

    def due(self, now: float) -> list[WireKey]:
        """Keys to ask for now."""
        if not self._asks:
            return []
        due = [key for key, ask in self._asks.items() if ask.at <= now]
        for key in due:
            ask = self._asks[key]
            ask.at = now + min(MAX_ASK_AGAIN_S, FIRST_ASK_AGAIN_S * 2.0 ** min(ask.attempts, 10))
            ask.attempts += 1
        # A snapshot under way would only start again.
        return [key for key in due if key not in self._keys or self._keys[key].assembly is None]

    def refused(self, keys: Iterable[WireKey], now: float, retry_after_s: float | None) -> None:
        """The hub refused to send snapshots: for now, with the time to wait, or for good (None)."""
        for key in keys:
            if retry_after_s is None:
                self._asks.pop(key, None)
            elif key in self._asks:
                self._asks[key].at = now + retry_after_s

    # --- frames

    def have(self, key: WireKey) -> int | None:
        """The revision held."""
        held = self._keys.get(key)
        return held.have if held is not None else None

    def frame(self, key: WireKey, message: Broadcast, size: int, now: float) -> Applied | Held | Unreadable:
        """Judge an analyzed_df of `size` bytes. What is Applied counts as held from then on."""
        data, rev = message.data, message.rev
        if not isinstance(data, Mapping) or rev is None:
            return Unreadable("expected data and rev")
        held = self._keys.setdefault(key, _Key())
        schema_id = str(data.get("schema"))
        if held.unreadable == (rev.epoch, schema_id):
            return Unreadable("given up before")
        whole = "cols" in data
        if not whole and not self._usable(held, rev):
            return self._unusable(key, held, rev, now)
        if whole and self._stale_snapshot(held, rev):
            self._asks.pop(key, None)
            return Held(current=True)
        schema = self._schemas.get(schema_id, "its schema was not sent")
        if isinstance(schema, str):
            return self._give_up(key, held, rev, schema_id, schema)
        try:
            if whole:
                return self._part(key, held, message, schema, size, now)
            rows = v2.from_rows(schema, data.get("rows"), self._wire)
        except BadFrame as error:
            return self._bad(key, held, rev, schema_id, whole, str(error), now)
        held.have = rev.n
        return Applied(rows, False, rev.n, _la_ms(data))

    def lost(self, key: WireKey, now: float) -> None:
        """What was Applied could not be taken over: a snapshot is needed, or, when it was one, the key is given up."""
        held = self._keys.setdefault(key, _Key())
        held.have = None
        self.ask(key, now)

    def give_up(self, key: WireKey, message: Broadcast, problem: str) -> Unreadable:
        """A snapshot could not be taken over: leave the key alone until its rev epoch or schema changes."""
        assert message.rev is not None
        held = self._keys.setdefault(key, _Key())
        return self._give_up(key, held, message.rev, str(message.data.get("schema")), problem)

    def _usable(self, held: _Key, rev: Rev) -> bool:
        return held.have is not None and held.epoch == rev.epoch and rev.prev <= held.have < rev.n

    def _unusable(self, key: WireKey, held: _Key, rev: Rev, now: float) -> Held:
        if held.have is not None and held.epoch == rev.epoch and rev.n <= held.have:
            if rev.n == held.have and held.assembly is None:
                # That nothing changed since is an answer, too.
                self._asks.pop(key, None)
            return Held(current=key not in self._asks)
        if held.assembly is None:
            self.ask(key, now)
        return Held(current=False)

    def _stale_snapshot(self, held: _Key, rev: Rev) -> bool:
        """Whether a snapshot says nothing new: it is of what is held already, or of earlier."""
        return held.have is not None and held.epoch == rev.epoch and rev.n <= held.have

    def _part(
        self, key: WireKey, held: _Key, message: Broadcast, schema: Schema, size: int, now: float
    ) -> Applied | Held | Unreadable:
        rev, data = message.rev, message.data
        assert rev is not None
        number, of = message.part or (1, 1)
        if number == 1:
            self._drop_assembly(held)
            held.assembly = _Assembly(rev.epoch, rev.n, of, [], 0)
        assembly = held.assembly
        fits = assembly is not None and (assembly.rev_epoch, assembly.n, assembly.of) == (
            rev.epoch,
            rev.n,
            of,
        )
        if assembly is None or not fits or number != len(assembly.tables) + 1:
            self._drop_assembly(held)
            self.ask(key, now)
            return Held(current=False)
        table = v2.from_columns(schema, data.get("n"), data.get("cols"), self._wire)
        if self.assembly_bytes + table.nbytes > self.limit_bytes:
            self._drop_assembly(held)
            problem = f"its snapshot is over {self.limit_bytes} bytes"
            return self._give_up(key, held, rev, schema.id, problem)
        assembly.tables.append(table)
        assembly.bytes += table.nbytes
        self.assembly_bytes += table.nbytes
        if number < of:
            return Held(current=False)
        tables = assembly.tables
        self._drop_assembly(held)
        window = tables[0] if of == 1 else Columns.concat(tables)
        held.epoch, held.have, held.unreadable = rev.epoch, rev.n, None
        self._asks.pop(key, None)
        return Applied(window, True, rev.n, _la_ms(data))

    def _bad(
        self, key: WireKey, held: _Key, rev: Rev, schema_id: str, whole: bool, problem: str, now: float
    ) -> Unreadable:
        self._drop_assembly(held)
        if whole:
            return self._give_up(key, held, rev, schema_id, problem)
        held.have = None
        self.ask(key, now)
        return Unreadable(problem)

    def _give_up(self, key: WireKey, held: _Key, rev: Rev, schema_id: str, problem: str) -> Unreadable:
        held.unreadable, held.have = (rev.epoch, schema_id), None
        self._drop_assembly(held)
        self._asks.pop(key, None)
        return Unreadable(problem)

    def _drop_assembly(self, held: _Key) -> None:
        if held.assembly is not None:
            self.assembly_bytes -= held.assembly.bytes
            held.assembly = None

    def statistics(self) -> dict[str, int]:
        """Keys, and the bytes of unfinished snapshots with their bound."""
        return {
            "revision_keys": len(self._keys),
            "asked_keys": len(self._asks),
            "assembly_bytes": self.assembly_bytes,
            "assembly_limit_bytes": self.limit_bytes,
        }


def _la_ms(data: Mapping[str, Any]) -> int | None:
    value = data.get("la_ms")
    return value if type(value) is int else None
