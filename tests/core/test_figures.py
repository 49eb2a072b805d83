"""hub.core.figures: what is said of topics and of sessions."""

from __future__ import annotations

from hub.core.figures import SessionFigures, TopicFigures, session_figures, topic_figures
from hub.core.session import Session
from tests.core.doubles import BIG, Rig, rows


def of(rig: Rig, session: Session, unsent: int = 0) -> SessionFigures:
    return session_figures(rig.core, session, unsent, rig.now)


def topics(rig: Rig) -> dict[str, TopicFigures]:
    return {figures.topic: figures for figures in topic_figures(rig.core)}


def written(rig: Rig, session: Session) -> int:
    """What a node writes to the group of this session: it counts it so."""
    assert session.group is not None
    pieces, _ = rig.core.collect(session.group, BIG, rig.now)
    size = sum(map(len, pieces))
    session.group.sent_bytes += size
    return size


def test_a_topic_counts_what_is_published_and_who_takes_it() -> None:
    rig = Rig()
    slow, _ = rig.subscribed("entry_fill", "status"), rig.subscribed("entry_fill")
    append = rig.fill()
    rig.fill()
    rig.event()
    rig.core.publish_value("a", "whitelist", None, ["BTC/USDT"], 1)
    rig.frame(rows(1, 3))
    rig.core.fall_behind(slow)
    figures = topics(rig)
    fills, status = figures["entry_fill"], figures["status"]
    assert (fills.kind, fills.messages, fills.last, fills.sessions, fills.behind) == ("ledger", 2, 2, 2, 1)
    assert fills.bytes == 2 * len(append.entry.body)
    assert (status.kind, status.last, status.kept, status.sessions) == ("event", 1, 1, 1)
    assert status.kept_bytes > 0
    assert (figures["whitelist"].kind, figures["whitelist"].kept) == ("state", 1)
    assert figures["analyzed_df"].kept_bytes == rig.core.state_bytes - figures["whitelist"].kept_bytes - sum(
        f.kept_bytes for name, f in figures.items() if name.startswith("hub.")
    )


def test_a_session_that_keeps_up_has_no_lag() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill")
    rig.fill()
    written(rig, session)
    rig.now += 7
    figures = of(rig, session)
    assert (figures.state, figures.lag_messages, figures.lag_keys, figures.lag_bytes) == ("hot", 0, 0, 0)
    assert (figures.topics, figures.connected_s) == (("entry_fill",), 7.0)


def test_one_that_does_not_has_it_in_messages_keys_and_bytes() -> None:
    rig = Rig()
    session = rig.subscribed("entry_fill", "status", "analyzed_df")
    rig.core.fall_behind(session)
    append = rig.fill(pad=1000)
    rig.fill(pad=1000)
    rig.event()
    rig.frame(rows(1))
    figures = of(rig, session, unsent=10)
    assert (figures.state, figures.lag_messages, figures.lag_keys) == ("behind", 3, 1)
    assert figures.lag_bytes == 2 * len(append.entry.body) + 10
    assert figures.unsent_bytes == 10


def test_what_is_below_the_memory_is_estimated() -> None:
    rig = Rig(tail_bytes=20_000)
    session = rig.subscribed("entry_fill")
    rig.core.fall_behind(session)
    for _ in range(40):
        append = rig.fill(pad=1000)
    figures = of(rig, session)
    assert figures.lag_messages == 40
    assert abs(figures.lag_bytes / (40 * len(append.entry.body)) - 1) < 0.05


def test_what_was_sent_is_known_without_counting_for_each() -> None:
    rig = Rig()
    session, other = rig.subscribed("entry_fill"), rig.subscribed("entry_fill")
    begun, begun_other = of(rig, session).sent_bytes, of(rig, other).sent_bytes
    rig.fill()
    together = written(rig, session)
    rig.core.fall_behind(session)
    rig.fill()
    without = written(rig, other)
    alone = sum(map(len, rig.core.pull(session, BIG, rig.now).frames))
    assert session.hot
    rig.fill()
    again = written(rig, other)
    assert min(together, without, alone, again) > 0
    assert of(rig, session).sent_bytes - begun == together + alone + again
    assert of(rig, other).sent_bytes - begun_other == together + without + again


def test_who_has_no_subscription_is_owed_nothing() -> None:
    rig = Rig()
    session = rig.session()
    session.tell({"type": "hub.reply", "id": 1, "ok": True})
    figures = of(rig, session)
    assert (figures.state, figures.topics, figures.lag_messages) == ("unsubscribed", (), 0)
    assert figures.lag_bytes == figures.control_bytes == session.control_bytes
