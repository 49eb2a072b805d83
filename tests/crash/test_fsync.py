"""No acknowledgement and no delivery before the fsync of its record: as strace sees it, in the order of the system calls."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from websockets.sync.client import ClientConnection

from .fills import fill
from .parties import Hub, publisher_token
from .reading import LEDGER_TOPICS, ask, dialled

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

TRACED = "fsync,fdatasync,write,writev,pwrite64,pwritev,sendto,sendmsg"
SHOWN_BYTES = 65536
SUBSCRIBE_ID = 10**9
WAL = "ledger.sqlite-wal>"
_CALL = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
_RESUMED = re.compile(r"^(?P<pid>\d+) +<\.\.\. (?P<call>\w+) resumed>(?P<rest>.*)$")
_MID = re.compile(r"mid-\d+-\d{4}")
_ACKNOWLEDGED = re.compile(r'\\"type\\":\\"hub\.reply\\",\\"id\\":(\d+),\\"ok\\":true')


@dataclass
class Call:
    """A system call: what it was given, and the lines of the trace where it began and ended."""

    name: str
    text: str
    begun: int
    ended: int = -1


def calls(trace: Path) -> Iterator[Call]:
    """The system calls of a trace, in the order in which they began."""
    open_calls: dict[str, Call] = {}
    all_calls: list[Call] = []
    for number, line in enumerate(trace.read_text(errors="replace").splitlines()):
        if match := _RESUMED.match(line):
            call = open_calls.pop(match["pid"], None)
            if call is not None:
                call.text += match["rest"]
                call.ended = number
        elif match := _CALL.match(line):
            call = Call(match["call"], match["rest"], number)
            all_calls.append(call)
            if line.endswith("<unfinished ...>"):
                open_calls[match["pid"]] = call
            else:
                call.ended = number
    return iter(all_calls)


def publish_all(port: int, publisher: int, messages: int) -> None:
    """One publisher that waits for each acknowledgement."""
    with dialled(port, publisher_token(0)) as websocket:
        websocket.recv(15)
        for n in range(messages):
            number = publisher * 10_000 + n + 1
            item = {
                "bot": "bot0",
                "topic": "entry_fill",
                "mid": f"mid-{publisher}-{n:04d}",
                "data": fill(number),
            }
            answer = ask(websocket, {"type": "publish", "id": number, "data": item})
            assert answer["ok"], answer


def drained(websocket: ClientConnection, messages: int) -> None:
    """Read until that many fills have come."""
    while messages:
        messages -= json.loads(websocket.recv(30))["type"] in LEDGER_TOPICS


@pytest.mark.parametrize(("publishers", "messages"), [(1, 60), (20, 15)])
def test_nothing_is_said_before_its_fsync(tmp_path: Path, publishers: int, messages: int) -> None:
    hub = Hub(tmp_path / "hub", publishers=1)
    trace = tmp_path / "trace"
    hub.start(
        "strace", "-f", "-y", "--seccomp-bpf", "-e", f"trace={TRACED}", "-e", "signal=none", "-s", str(SHOWN_BYTES), "-o", str(trace),
    )  # fmt: skip
    try:
        with dialled(hub.port) as reader:
            ask(
                reader,
                {"type": "subscribe", "id": SUBSCRIBE_ID, "data": {"want": [{"topics": LEDGER_TOPICS}]}},
            )
            threads = [
                threading.Thread(target=publish_all, args=(hub.port, number, messages))
                for number in range(publishers)
            ]
            for thread in threads:
                thread.start()
            drained(reader, publishers * messages)
            for thread in threads:
                thread.join(60)
        time.sleep(0.2)
    finally:
        hub.close()
    judge(trace, publishers, publishers * messages)


def judge(trace: Path, publishers: int, messages: int) -> None:
    """Check the order of the calls, and print how many fsyncs there were."""
    written: dict[str, int] = {}
    durable: dict[str, int] = {}
    told: dict[str, int] = {}
    delivered: dict[str, int] = {}
    fsyncs: list[Call] = []
    for call in calls(trace):
        if call.name in ("fsync", "fdatasync") and WAL in call.text:
            fsyncs.append(call)
            for mid, line in written.items():
                # What was written before it began is on the disk when it has ended.
                if line < call.begun and mid not in durable and call.ended >= 0:
                    durable[mid] = call.ended
        elif WAL in call.text[:1000]:
            for mid in _MID.findall(call.text):
                written.setdefault(mid, call.ended if call.ended >= 0 else 1 << 60)
        elif call.name in ("sendto", "sendmsg", "write", "writev"):
            for number in _ACKNOWLEDGED.findall(call.text):
                publisher, n = divmod(int(number) - 1, 10_000)
                if int(number) != SUBSCRIBE_ID:
                    told.setdefault(f"mid-{publisher}-{n:04d}", call.begun)
            if '\\"entry_fill\\"' in call.text:
                for mid in _MID.findall(call.text):
                    delivered.setdefault(mid, call.begun)
    assert len(durable) == messages, f"{len(written)} written, {len(durable)} fsynced of {messages}"
    assert len(told) == len(delivered) == messages
    early = [mid for mid, line in told.items() if line <= durable[mid]]
    early_deliveries = [mid for mid, line in delivered.items() if line <= durable[mid]]
    print(
        f"\n{publishers} publishers: {messages} messages, {len(fsyncs)} fsyncs, {len(fsyncs) / messages:.2f} per acknowledgement; "
        f"acknowledged before their fsync {len(early)}, delivered before it {len(early_deliveries)}"
    )
    assert not early, early[:10]
    assert not early_deliveries, early_deliveries[:10]
    if publishers > 1:
        assert len(fsyncs) < 0.6 * messages, "publishers do not share fsyncs"
