"""A real freqtrade API server that says what it is told: requests are answered, messages broadcast, by freqtrade.

    python apiserver_probe.py PORT TOKEN TIMEFRAME

Runs inside a freqtrade environment until its standard input ends; prints `{"port": n}` once it listens. Each line of
standard input is `{"do": command, ...}` and is answered with `{"done": command}`:

    whitelist pairs=[...]                   the active whitelist from now on, broadcast when it differs
    analyzed pair= frame= candles=0|1       keeps the frame (exact_frames form); with candles, broadcasts its last row
    story first= second=                    every type that a bot's start, trades, protections and failures give
    say text=                               strategy_msg
    status text=                            status
    send type= fields={}                    any message, as a newer freqtrade might send it
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from bare_bot import BareBot, config_for
from exact_frames import load

COMMANDS = {
    "whitelist": lambda bot, pairs: bot.set_whitelist(pairs),
    "analyzed": lambda bot, pair, frame, candles: bot.analyzed(pair, load(frame), candles=candles),
    "story": lambda bot, first, second: tell_story(bot, first, second),
    "say": lambda bot, text: bot.say(text),
    "status": lambda bot, text: bot.notify_status(text),
    "send": lambda bot, type, fields: bot.rpc.send_msg({"type": type, **fields}),
}


def tell_story(bot: BareBot, first: str, second: str) -> None:
    bot.start_messages()
    bot.trade_story(first, second)
    bot.fail()
    bot.say("RIG the story is told")


def main() -> None:
    port, token, timeframe = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    bot = BareBot(config_for(token, timeframe=timeframe, port=int(port)))
    say(port=bot.port)
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("do")
        COMMANDS[name](bot, **command)
        say(done=name)
    bot.stop()


def say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


if __name__ == "__main__":
    main()
