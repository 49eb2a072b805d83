"""consumer.data."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from consumer_doubles import KEY, START_MS, STEP_MS, rows

from consumer.config import ConsumerConfig
from consumer.data import ProducerData, without_signals
from hub.frames.columns import Columns
from hub.protocol.errors import BadFrame
from hub.protocol.messages import FrameKey

NEVER = datetime(1970, 1, 1, tzinfo=UTC)
FRAME_KEY = FrameKey(*KEY)


def test_unknown_producers_and_pairs() -> None:
    data = ProducerData()
    assert data.get_producer_pairs() == []
    frame, as_of = data.get_producer_df("BTC/USDT")
    assert frame.empty
    assert as_of == NEVER
    data.book("default").set_pairs("default", ["A/B"])
    frame, as_of = data.get_producer_df("BTC/USDT")
    assert (frame.empty, as_of, frame.attrs["stale"]) == (True, NEVER, True)


def test_pairs_are_a_copy_and_may_become_none() -> None:
    data = ProducerData()
    book = data.book("default")
    pairs = ["A/B", "C/D"]
    book.set_pairs("default", pairs)
    data.get_producer_pairs().append("x")
    pairs.append("y")
    assert data.get_producer_pairs() == ["A/B", "C/D"]
    book.set_pairs("default", [])
    assert data.get_producer_pairs() == []


def test_a_frame_and_what_its_attrs_say() -> None:
    data = ProducerData()
    data.book("default").apply("default", FRAME_KEY, rows(0, 3), START_MS + 7, snapshot=True, rev=9)
    frame, as_of = data.get_producer_df(KEY[0])
    assert as_of == datetime.fromtimestamp((START_MS + 7) / 1000, UTC)
    assert frame.attrs == {"as_of": as_of, "stale": False, "missing": 0, "rev": 9}
    assert frame["close"].tolist() == [0, 1, 2]
    assert str(frame["date"].dt.tz) == "UTC"
    assert frame["date"].iloc[0] == pd.Timestamp(START_MS, unit="ms", tz="UTC")


def test_a_frame_is_a_copy() -> None:
    data = ProducerData()
    data.book("default").apply("default", FRAME_KEY, rows(0, 3), 0, snapshot=True)
    frame, _ = data.get_producer_df(KEY[0])
    frame.loc[0, "close"] = 99.0
    frame.attrs["stale"] = "mine"
    again, _ = data.get_producer_df(KEY[0])
    assert again["close"].tolist() == [0, 1, 2]
    assert again.attrs["stale"] is False


def test_rows_join_and_the_window_is_bounded() -> None:
    data = ProducerData()
    book = data.book("default")
    book.apply("default", FRAME_KEY, rows(0, 1500), 0, snapshot=True)
    book.apply("default", FRAME_KEY, rows(1499, value=-1.0), 0, snapshot=False)
    book.apply("default", FRAME_KEY, rows(1500, 2), 0, snapshot=False)
    frame, _ = data.get_producer_df(KEY[0])
    assert len(frame) == 1500
    assert frame["close"].tolist()[-3:] == [-1.0, 1500.0, 1501.0]
    book.apply("default", FRAME_KEY, rows(7, 2), 0, snapshot=True)
    assert len(data.get_producer_df(KEY[0])[0]) == 2


def test_the_defaults_are_the_consumers_own() -> None:
    data = ProducerData.of(ConsumerConfig(raw={"timeframe": "1h", "trading_mode": "spot"}))
    data.book("default").apply("default", FRAME_KEY, rows(0), 0, snapshot=True)
    frame, as_of = data.get_producer_df(KEY[0])
    assert (frame.empty, as_of) == (True, NEVER)
    assert frame.attrs["available"] == [["5m", "spot"]]
    assert len(data.get_producer_df(KEY[0], "5m")[0]) == 1
    assert data.get_producer_df(KEY[0], "5m", "futures")[0].empty


def test_without_defaults_the_only_one_is_meant() -> None:
    data = ProducerData()
    book = data.book("default")
    book.apply("default", FRAME_KEY, rows(0), 0, snapshot=True)
    assert len(data.get_producer_df(KEY[0])[0]) == 1
    book.apply(
        "default",
        FrameKey(KEY[0], "1h", "spot"),
        Columns.from_mapping({"date": [START_MS]}),
        0,
        snapshot=True,
    )
    assert data.get_producer_df(KEY[0])[0].empty
    assert len(data.get_producer_df(KEY[0], "5m")[0]) == 1


def test_staleness() -> None:
    data = ProducerData()
    book = data.book("default")
    book.mark_stale("default", FRAME_KEY)
    book.apply("default", FRAME_KEY, rows(0, 3), 0, snapshot=True)
    book.mark_stale("default", FRAME_KEY, missing=4, problem="why")
    attrs = data.get_producer_df(KEY[0])[0].attrs
    assert (attrs["stale"], attrs["missing"], attrs["problem"]) == (True, 4, "why")
    assert book.statistics()["stale_keys"] == 1
    book.mark_fresh("default", FRAME_KEY)
    assert not data.get_producer_df(KEY[0])[0].attrs["stale"]
    book.mark_all_stale()
    assert data.get_producer_df(KEY[0])[0].attrs["stale"]
    book.apply("default", FRAME_KEY, rows(3), 0, snapshot=False)
    assert not data.get_producer_df(KEY[0])[0].attrs["stale"]


def test_what_cannot_be_stored_changes_nothing() -> None:
    data = ProducerData()
    book = data.book("default")
    off_grid = Columns.from_mapping({"date": [START_MS, START_MS + 1]})
    with pytest.raises(BadFrame):
        book.apply("default", FRAME_KEY, off_grid, 0, snapshot=True)
    with pytest.raises(BadFrame):
        book.apply("default", FrameKey("A/B", "5 minutes", "spot"), rows(0), 0, snapshot=True)
    assert book.statistics()["keys"] == 0


def test_the_bots_of_a_hub(caplog: pytest.LogCaptureFixture) -> None:
    data = ProducerData()
    book = data.book("hub")
    book.set_pairs("alpha", ["A/B"])
    assert data.get_producer_pairs("hub") == ["A/B"]
    book.set_pairs("beta", ["C/D"])
    assert data.get_producer_pairs("hub/alpha") == ["A/B"]
    assert data.get_producer_pairs("hub/beta") == ["C/D"]
    assert data.get_producer_pairs("hub") == []
    assert data.get_producer_pairs("hub") == []
    assert caplog.text.count("use one of hub/alpha, hub/beta") == 1
    assert data.get_producer_pairs("hub/none") == []
    book.set_pairs("hub", ["E/F"])
    assert data.get_producer_pairs("hub") == ["E/F"]
    one = data.book("one", bots=["beta"])
    one.set_pairs("alpha", ["A/B"])
    one.set_pairs("beta", ["C/D"])
    assert data.get_producer_pairs("one") == ["C/D"]


def test_signals_removed() -> None:
    columns = rows(
        0, 2, enter_long=[1, 0], exit_short=[True, None], enter_tag=["a", "b"], exit_tag=[1.0, 2.0]
    )
    cleared = without_signals(columns)
    assert cleared.schema == columns.schema
    assert [cleared.row(i)[1:] for i in range(2)] == [
        [0.0, 0, False, None, None],
        [1.0, 0, False, None, None],
    ]
    assert columns.row(0)[2] == 1
    untouched = rows(0, 2)
    assert without_signals(untouched) is untouched


def test_readers_in_other_threads_see_whole_frames() -> None:
    data = ProducerData()
    book = data.book("default")
    book.apply("default", FRAME_KEY, rows(0, 50), 0, snapshot=True)
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            frame, _ = data.get_producer_df(KEY[0])
            dates = frame["date"].dt.as_unit("ms").astype("int64").to_numpy()
            if len(set(np.diff(dates))) != 1 or len(set(frame["close"] - np.arange(len(frame)))) != 1:
                wrong.append(frame)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for i in range(200):
        book.apply("default", FRAME_KEY, rows(0, 50 + i % 7), START_MS + i * STEP_MS, snapshot=True)
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_columns_of_exactly_one_key() -> None:
    data = ProducerData()
    assert data.analyzed_df(FRAME_KEY) is None
    data.book("hub").apply("alpha", FRAME_KEY, rows(0, 3), START_MS + 7, snapshot=True)
    for name in ("hub", "hub/alpha"):
        found = data.analyzed_df(FRAME_KEY, name)
        assert found is not None
        assert found.df.column("close").tolist() == [0, 1, 2]
        assert found.la == datetime.fromtimestamp((START_MS + 7) / 1000, UTC)
    assert data.analyzed_df(FRAME_KEY, "hub/beta") is None
    assert data.analyzed_df(FrameKey(KEY[0], "1d", KEY[2]), "hub") is None
