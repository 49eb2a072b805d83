"""freqtrade's own encoder and decoder of dataframes, one frame a line.

    python codec_probe.py < LINES

Runs inside a freqtrade environment. A line is `{"frame": <exact_frames>}` and is answered with `{"text": ...}`, the text that
freqtrade puts on the wire; or `{"text": ...}`, answered with `{"frame": <exact_frames>}`, what freqtrade makes of it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from exact_frames import dump, load
from freqtrade.misc import dataframe_to_json, json_to_dataframe


def answer(line: dict[str, Any]) -> dict[str, Any]:
    if "frame" in line:
        return {"text": dataframe_to_json(load(line["frame"]))}
    return {"frame": dump(json_to_dataframe(line["text"]))}


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
