"""The canonical set of messages, and the golden files made from it.

`freqtrade/*.json` are what a real freqtrade sends; they are given and never written here. From each, and from the hub's own
messages and a client's requests, come one file for each of the two wires of tradewire.v2: `v2.json/NAME.json` and
`v2.msgpack/NAME.mp`, the payload of one websocket frame, byte for byte. A changed byte is a changed protocol: look at
the difference before you write the files anew with

    python -m tests.wire.golden
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub.core import notices
from hub.core.entry import Entry
from hub.core.ledger import Ended
from hub.core.positions import start
from hub.core.session import Session
from hub.core.state import FrameCache, FrameCell, StateKey, ValueCell
from hub.frames.columns import Columns
from hub.frames.freqtrade import decode_split
from hub.protocol.calls import BotRequest
from hub.protocol.codec import CODECS, Wire, encode_body, payload_of
from hub.protocol.envelope import reply, reply_error
from hub.protocol.errors import NotDurable
from hub.protocol.messages import DeliveryClass, FrameKey, delivery_class
from hub.protocol.principal import Principal
from hub.protocol.subscription import Projection, Resume

HERE = Path(__file__).parent
FREQTRADE = sorted(path.stem for path in (HERE / "freqtrade").glob("*.json"))
V2_WIRES = (Wire.JSON, Wire.MSGPACK)
BOT, TS, EPOCH, REV_EPOCH = "alpha", 1_795_357_431_000, "e7", "r9"
_BARE_DATA = frozenset({"whitelist", "new_candle", "analyzed_df"})


def freqtrade_message(name: str) -> dict[str, Any]:
    """What a real freqtrade sent."""
    message: dict[str, Any] = json.loads((HERE / "freqtrade" / f"{name}.json").read_text())
    return message


def canonical(message: dict[str, Any]) -> tuple[str, Any]:
    """(topic, canonical payload) of a message of freqtrade's wire."""
    topic = message["type"]
    if topic in _BARE_DATA:
        return topic, message["data"]
    return topic, {name: value for name, value in message.items() if name != "type"}


def entry_of(topic: str, data: Any, number: int = 42) -> Entry:
    """The message as a log holds it."""
    entry = Entry(BOT, topic, TS, encode_body(data), mid=f"m{number}", publisher=BOT)
    if delivery_class(topic) is DeliveryClass.LEDGER:
        entry.epoch, entry.offset, entry.prev = EPOCH, number, number - 2
    return entry


def frame_cell(rows: Columns, key: list[str]) -> FrameCell:
    """A dataframe key that holds these rows at revision 1."""
    cell = FrameCell(
        StateKey(BOT, "analyzed_df", FrameKey(*key)), REV_EPOCH, capacity=1500, cache=FrameCache(1 << 20)
    )
    cell.apply(rows, replace=True, la_ms=TS, ts=TS)
    return cell


def _broadcasts(wire: Wire) -> Iterator[tuple[str, bytes]]:
    for name in FREQTRADE:
        topic, data = canonical(freqtrade_message(name))
        if topic == "analyzed_df":
            rows = decode_split(data["df"]["__value__"])
            cell = frame_cell(rows, data["key"])
            yield f"{name}.snapshot", next(cell.snapshot(wire, Projection(), 1 << 18))
            changed = Columns(
                rows.schema,
                [
                    a + 1.0 if f.name == "close" else a
                    for f, a in zip(rows.schema.fields, rows.arrays, strict=True)
                ],
                rows.valid,
            )
            cell.apply(changed, replace=False, la_ms=TS + 1, ts=TS + 1)
            live = cell.rows_frame(wire, Projection(), 1, 1 << 18)
            assert live is not None
            yield f"{name}.rows", live
        elif topic in _BARE_DATA:
            value = ValueCell(
                StateKey(BOT, topic, FrameKey(*data) if topic == "new_candle" else None), REV_EPOCH
            )
            value.set(data, TS)
            yield name, value.frame(wire)
        else:
            yield name, entry_of(topic, data).frame(wire)
    yield (
        "unknown_type",
        entry_of("funding_fee", {"pair": "BTC/USDT:USDT", "fee": 1e-17, "no": None}).frame(wire),
    )
    complete = ValueCell(StateKey(BOT, "hub.candle_complete", "5m"), REV_EPOCH)
    pairs = {"pairs": ["BTC/USDT"], "missing": ["ETH/USDT"]}
    complete.set({"bot": BOT, "timeframe": "5m", "candle_ms": TS, **pairs, "deadline": True}, TS)
    yield "hub.candle_complete", complete.frame(wire)


def _own(wire: Wire) -> Iterator[tuple[str, dict[str, Any]]]:
    principal = Principal(name="dash", reads=frozenset({"alpha"}), expires_ms=TS)
    session = Session("5e55", principal, wire, "c", 0.0)
    limits = {"message": 1 << 20, "items": 256}
    yield (
        "hub.welcome",
        notices.welcome(
            session,
            version="0.1.0",
            node="n1",
            now_ms=TS,
            epoch=EPOCH,
            floor=0,
            head=42,
            heartbeat_ms=20000,
            limits=limits,
        ),
    )
    yield "hub.gap", notices.gap(EPOCH, 40, 45)
    yield "hub.gap.damaged", notices.gap(EPOCH, 44, 45, reason="damaged")
    yield "hub.position", notices.position(EPOCH, 40, 45, [["alpha", "entry_fill", 42]])
    yield "hub.position.empty", notices.position(EPOCH, 45, 60, [])
    yield "hub.dropped", notices.dropped({"status": 12})
    yield "hub.lagging", notices.lagging(3, 5 << 20, 8 << 20)
    yield "hub.heartbeat", notices.heartbeat(TS)
    yield "hub.reconciled", notices.reconciled("alpha", missing=3, published=2, unknown=1)
    rows = decode_split(freqtrade_message("analyzed_df")["data"]["df"]["__value__"])
    yield "hub.schema", notices.schema_notice(rows.schema)
    error = NotDurable("disk full", retry_after_ms=2000).as_data()
    yield "hub.error", notices.error(error)
    yield "hub.reply.error", reply_error(10, error)
    lists: dict[str, Any] = {"unknown": [], "missing": [], "missing_keys": [], "denied": []}
    for name, resume in (
        ("hub.reply.subscribe", None),
        ("hub.reply.subscribe.recovered", Resume(EPOCH, 40, {})),
        ("hub.reply.subscribe.retention", Resume(EPOCH, 12, {})),
        ("hub.reply.subscribe.epoch", Resume("e6", 40, {})),
        ("hub.reply.subscribe.future", Resume(EPOCH, 61, {})),
    ):
        began = start(EPOCH, 30, 60, resume, earliest=False)
        yield name, reply(1, began.as_data(EPOCH) | lists)
    lineage = (Ended("e5", 50, 58), Ended("e6", 38, 57))
    for name, resume in (
        ("hub.reply.subscribe.cut", Resume("e6", 36, {})),
        ("hub.reply.subscribe.cuts", Resume("e5", 12, {})),
        ("hub.reply.subscribe.same", Resume("e6", 57, {})),
    ):
        began = start(EPOCH, 30, 60, resume, earliest=False, lineage=lineage)
        yield name, reply(1, began.as_data(EPOCH) | lists)
    yield "hub.reply.publish", reply(9, {"epoch": EPOCH, "offset": 51, "duplicate": False})
    request = BotRequest(
        method="POST", path="/forceexit", body={"tradeid": "7"}, principal="user:u", key="k1"
    )
    yield "hub.call", notices.call(17, request)
    yield "hub.cancel", notices.cancel(17)
    want = [
        {"topics": ["entry_fill"], "bots": ["alpha"]},
        {
            "topics": ["analyzed_df"],
            "bots": "*",
            "pairs": ["BTC/USDT:USDT"],
            "columns": ["close", "&-*"],
            "rows": 500,
        },
    ]
    yield (
        "request.hello",
        {"type": "hello", "data": {"client": "c/1.2", "max_message": 8388608, "features": ["lineage"]}},
    )
    yield "request.subscribe", {"type": "subscribe", "id": 1, "data": {"want": want, "from": "live"}}
    held = [["alpha", "analyzed_df", ["BTC/USDT:USDT", "5m", "futures"], REV_EPOCH, 812]]
    resumed = {"want": want, "resume": {"epoch": EPOCH, "offset": 40, "keys": held}}
    yield "request.subscribe.resume", {"type": "subscribe", "id": 1, "data": resumed}
    yield "request.unsubscribe", {"type": "unsubscribe", "id": 2}
    yield "request.ping", {"type": "ping", "id": 3, "data": {"t": 1.5}}
    yield "request.keys", {"type": "keys", "id": 4, "data": {"bots": "*", "topics": ["analyzed_df"]}}
    keys = [["alpha", "analyzed_df", ["BTC/USDT:USDT", "5m", "futures"]]]
    yield "request.resync", {"type": "resync", "id": 5, "data": {"keys": keys}}
    fill = {"trade_id": 7, "pair": "BTC/USDT"}
    item = {"bot": "alpha", "topic": "exit_fill", "mid": "8a0", "ts": TS, "data": fill}
    yield "request.publish", {"type": "publish", "id": 9, "data": item}
    yield "request.attach", {"type": "attach", "id": 10, "data": {"bot": "alpha", "paths": ["GET /status"]}}
    yield "request.detach", {"type": "detach", "id": 11, "data": {"bot": "alpha"}}
    asked = {"bot": "alpha", "method": "GET", "path": "/trades", "query": "limit=5", "deadline_ms": 2000}
    yield "request.call", {"type": "call", "id": 12, "data": asked}
    yield "request.cancel", {"type": "cancel", "id": 13, "data": {"id": 12}}
    yield "request.result", {"type": "result", "data": {"call": 17, "status": 200, "body": {"result": "ok"}}}


def golden(wire: Wire) -> dict[str, bytes]:
    """The payload of every message of the canonical set on a wire of tradewire.v2, by its name."""
    codec = CODECS[wire]
    payloads = {name: payload_of(frame) for name, frame in _broadcasts(wire)}
    return payloads | {name: codec.encode(message) for name, message in _own(wire)}


def path_of(wire: Wire, name: str) -> Path:
    """The golden file of a message."""
    return (
        HERE
        / ("v2.json" if wire is Wire.JSON else "v2.msgpack")
        / f"{name}.{'json' if wire is Wire.JSON else 'mp'}"
    )


def main() -> None:
    for wire in V2_WIRES:
        for name, payload in golden(wire).items():
            path = path_of(wire, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(payload)


if __name__ == "__main__":
    main()
