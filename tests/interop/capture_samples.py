"""Captures every message type of a real freqtrade API server, byte for byte, as the golden files of its wire.

    python capture_samples.py OUT_DIR [SAMPLES.json]

Run it with the Python of a freqtrade environment. One file per type, `<type>.json`, one line without an end: the text
frame that a raw websocket client received. SAMPLES.json (`{type: [frame, ...]}`, recorded from whole bots) is preferred
where it has a type, after its field names and their order were compared with the capture.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path

from bare_bot import BareBot, config_for
from exact_frames import hard_frame
from freqtrade.enums import RPCMessageType
from websockets.sync.client import connect

TOKEN = "capture-token-0123456789abcdef"
TYPES = [str(kind.value) for kind in RPCMessageType]


def main() -> int:
    out = Path(sys.argv[1])
    samples = json.loads(Path(sys.argv[2]).read_text()) if len(sys.argv) > 2 else {}
    captured = capture()
    faults = [fault for kind, frame in captured.items() for fault in compare(kind, frame, samples)]
    missing = [kind for kind in TYPES if kind not in captured]
    for fault in [*faults, *(f"{kind}: not captured" for kind in missing)]:
        print(fault, file=sys.stderr)
    out.mkdir(parents=True, exist_ok=True)
    for kind, frame in sorted(captured.items()):
        (out / f"{kind}.json").write_text(samples.get(kind, [frame])[0], encoding="utf-8")
    print(
        f"{len(captured)} files in {out}, {sum(kind in samples for kind in captured)} of them from the samples"
    )
    return 1 if faults or missing else 0


def capture() -> dict[str, str]:
    """The first frame of each type, and `exception_request`, the answer to a request of an unknown type."""
    bot = BareBot(config_for(TOKEN, timeframe="1m"))
    frames: list[str] = []
    try:
        with connect(f"ws://127.0.0.1:{bot.port}/api/v1/message/ws?token={TOKEN}", max_size=None) as ws:
            ws.send(json.dumps({"type": "subscribe", "data": TYPES}))
            ws.send(json.dumps({"type": "no_such_request", "data": None}))
            refusal = str(ws.recv(timeout=20))
            teller = threading.Thread(target=tell, args=(bot,))
            teller.start()
            while not frames or "last words" not in frames[-1]:
                frames.append(str(ws.recv(timeout=20)))
            teller.join()
    finally:
        bot.stop()
    found = {"exception_request": refusal}
    for frame in frames:
        found.setdefault(json.loads(frame)["type"], without_paths(frame))
    return found


def tell(bot: BareBot) -> None:
    """One of everything, the strategy's message last."""
    bot.start_messages()
    bot.set_whitelist(["BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"])
    bot.analyzed("BTC/USDT", hard_frame(120, start_ms=1795348800000, step_ms=60000))
    bot.trade_story("SOL/USDT", "BTC/USDT")
    bot.fail()
    bot.say("last words")


def compare(kind: str, frame: str, samples: dict[str, list[str]]) -> list[str]:
    """Where the fields of a recorded frame differ from those of the captured one."""
    ours = list(json.loads(frame))
    return [
        f"{kind}: a sample has the fields {list(json.loads(sample))}, the capture {ours}"
        for sample in samples.get(kind, [])
        if list(json.loads(sample)) != ours
    ]


def without_paths(frame: str) -> str:
    """A traceback names files of the machine it ran on; in freqtrade's own image they live in /freqtrade."""
    return re.sub(r'File \\"[^"]*?/(freqtrade|tests/interop)/', r'File \\"/freqtrade/\1/', frame)


if __name__ == "__main__":
    sys.exit(main())
