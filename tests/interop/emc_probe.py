"""freqtrade's own message consumer and data provider, which say in JSON lines what a strategy would get from them.

    python emc_probe.py HOST PORT TOKEN TIMEFRAME SLEEP_TIME

Runs inside a freqtrade environment until its standard input ends. Lines: `{"connected": n}` after each connection,
`{"pairs": [...]}` after each whitelist, `{"pair", "la", "frame": <exact_frames>}` after each change of a frame, and
`{"log": level, "text": ...}` for what the consumer warns of.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from typing import Any

from exact_frames import dump
from freqtrade.data.dataprovider import DataProvider
from freqtrade.enums import CandleType, RunMode
from freqtrade.rpc.external_message_consumer import ExternalMessageConsumer

_lock = threading.Lock()


def say(**event: Any) -> None:
    with _lock:
        print(json.dumps(event), flush=True)


class TellingProvider(DataProvider):
    """The data provider, asked as a strategy asks it after each time the consumer fed it."""

    def _set_producer_pairs(self, pairlist: list[str], producer_name: str = "default") -> None:
        super()._set_producer_pairs(pairlist, producer_name)
        say(pairs=self.get_producer_pairs(producer_name))

    def _replace_external_df(
        self,
        pair: str,
        dataframe: Any,
        last_analyzed: Any,
        timeframe: str,
        candle_type: Any,
        producer_name: str = "default",
    ) -> None:
        super()._replace_external_df(pair, dataframe, last_analyzed, timeframe, candle_type, producer_name)
        frame, analyzed = self.get_producer_df(pair, timeframe, candle_type, producer_name)
        say(pair=pair, la=analyzed.isoformat(), frame=dump(frame))


class TellingHandler(logging.Handler):
    """Connections and complaints of freqtrade's consumer."""

    connections = 0

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Connected to channel"):
            self.connections += 1
            say(connected=self.connections)
        elif record.levelno >= logging.WARNING:
            say(log=record.levelname, text=text)


def main() -> None:
    host, port, token, timeframe, sleep_time = sys.argv[1:]
    logging.getLogger("freqtrade").setLevel(logging.INFO)
    logging.getLogger("freqtrade").addHandler(TellingHandler())
    producer = {"name": "default", "host": host, "port": int(port), "secure": False, "ws_token": token}
    config = {
        "runmode": RunMode.DRY_RUN,
        "timeframe": timeframe,
        "candle_type_def": CandleType.SPOT,
        "external_message_consumer": {
            "enabled": True,
            "producers": [producer],
            "sleep_time": int(sleep_time),
        },
    }
    consumer = ExternalMessageConsumer(config, TellingProvider(config, None))
    sys.stdin.read()
    consumer.shutdown()


if __name__ == "__main__":
    main()
