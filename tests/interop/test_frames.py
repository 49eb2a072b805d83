"""What real freqtrade decodes from our text equals what it would have got, and we decode its text as it does.

freqtrade's own encoder keeps ten decimals; ours keeps every digit, so floats are compared with the producer's frame. They
are equal to a relative error of 1.2e-15: freqtrade's reader (pandas.read_json) is not exact, whatever the text.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bots import HERE, interop_python
from exact_frames import dump, hard_frame, load

from hub.frames.columns import Columns
from hub.frames.freqtrade import decode_split, encode_split

START = 1795348800000


class Codec:
    """freqtrade's encoder and decoder in a process of their own (codec_probe.py)."""

    def __init__(self) -> None:
        command = [interop_python(), str(HERE / "codec_probe.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def encode(self, frame: pd.DataFrame) -> str:
        return str(self._ask({"frame": dump(frame)})["text"])

    def decode(self, text: str) -> pd.DataFrame:
        return load(self._ask({"text": text})["frame"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def codec():  # type: ignore[no-untyped-def]
    codec = Codec()
    yield codec
    codec.close()


def random_frame(rows: int, low: float, high: float, seed: int) -> pd.DataFrame:
    """Columns of random floats whose size is between 10**low and 10**high, of both signs, with holes."""
    random = np.random.default_rng(seed)
    sizes = 10.0 ** random.uniform(low, high, (rows, 8))
    values = random.random((rows, 8)) * sizes * random.choice([-1.0, 1.0], (rows, 8))
    frame = pd.DataFrame({f"f{i}": values[:, i] for i in range(8)})
    frame.insert(0, "date", pd.to_datetime(START + np.arange(rows) * 60000, unit="ms", utc=True))
    frame.loc[random.random(rows) < 0.1, "f3"] = np.nan
    return frame


FRAMES = {
    "hard": hard_frame(200, start_ms=START, step_ms=60000),
    "one row": hard_frame(200, start_ms=START, step_ms=60000).tail(1),
    "tiny": random_frame(300, -14, -4, 1),
    "ratios": random_frame(300, -5, 0, 2),
    "prices": random_frame(300, 0, 6, 3),
    "volumes": random_frame(300, 5, 18, 4),
    "extreme": random_frame(300, -290, 290, 5),
    "float32": random_frame(50, -5, 5, 6).astype({f"f{i}": "float32" for i in range(8)}),
    "tags": pd.DataFrame(
        {
            "date": pd.to_datetime(START + np.arange(4) * 60000, unit="ms", utc=True),
            "enter_tag": ["plain", None, 'quoted "x" \\ / é\n', ""],
            "none": [None, None, None, None],
            "big": [2**53, -(2**53), 0, 7],
            "flag": [True, False, True, True],
        }
    ),
}
EXACT_COLUMNS_LOSSY_AT_THE_RECEIVER = {"enter_tag"}


@pytest.mark.parametrize("name", FRAMES)
def test_freqtrade_decodes_our_text_as_its_own_but_with_every_digit(name: str, codec: Codec) -> None:
    frame = FRAMES[name]
    theirs = codec.decode(codec.encode(frame))

    ours = codec.decode(encode_split(Columns.from_pandas(frame)))

    assert list(ours.columns) == list(theirs.columns)
    assert ours.dtypes.to_dict() == theirs.dtypes.to_dict()
    for column in ours.columns:
        if ours[column].dtype.kind == "f" and frame[column].dtype.kind == "f":
            assert_near(ours[column], frame[column].astype("float64"))
        else:
            pd.testing.assert_series_equal(ours[column], theirs[column], check_index=False)


@pytest.mark.parametrize("name", FRAMES)
def test_we_decode_freqtrades_text_without_losing_a_digit_of_it(name: str, codec: Codec) -> None:
    text = codec.encode(FRAMES[name])
    said = json.loads(text)

    columns = decode_split(text)

    frame = columns.to_pandas()
    assert list(frame.columns) == said["columns"]
    for position, column in enumerate(said["columns"]):
        wanted = [row[position] for row in said["data"]]
        if column == "date":
            assert columns.date_ms.tolist() == wanted
        else:
            assert [None if pd.isna(value) else value for value in frame[column].tolist()] == wanted


@pytest.mark.parametrize("name", FRAMES)
def test_our_own_text_comes_back_to_us_bit_by_bit(name: str) -> None:
    columns = Columns.from_pandas(FRAMES[name])

    back = decode_split(encode_split(columns), like=columns.schema)

    for column in FRAMES[name].columns:
        sent, got = columns.to_pandas()[column], back.to_pandas()[column]
        if sent.dtype.kind == "f":
            sent = sent.where(np.isfinite(sent))  # freqtrade's wire has null for nan and both infinities
        pd.testing.assert_series_equal(got, sent, check_dtype=False, check_exact=True, obj=column)


def assert_near(got: pd.Series, sent: pd.Series) -> None:
    """Holes where the sent values are not finite, elsewhere as near as freqtrade's reader takes any text."""
    sent = sent.where(np.isfinite(sent))
    np.testing.assert_allclose(got.to_numpy(), sent.to_numpy(), rtol=1.2e-15, atol=0, err_msg=str(got.name))


def test_the_golden_row_is_the_text_that_freqtrade_sends(codec: Codec) -> None:
    sample = json.loads((Path(__file__).parents[1] / "wire/freqtrade/analyzed_df.json").read_text())
    text = sample["data"]["df"]["__value__"]

    columns = decode_split(text)

    again = json.loads(encode_split(columns))
    again["index"] = json.loads(text)["index"]
    assert again == json.loads(text)
    pd.testing.assert_frame_equal(codec.decode(json.dumps(again)), codec.decode(text), check_exact=True)
