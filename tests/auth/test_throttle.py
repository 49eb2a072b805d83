"""hub.auth.throttle: what an attacker gets, and what its neighbours keep."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

import pytest

from hub.auth.authenticator import Authenticator
from hub.auth.throttle import KNOWN_S, GuessBudget, KnownLogins, Throttled, place_of
from hub.config import Secret
from hub.config.sections import Throttle as Limits
from hub.protocol.errors import HandshakeRefused, Overloaded

from .credentials import ALPHA, JWT_KEY, NOW_MS, PUBLISHER, READER, authenticator, basic, config

HERE, THERE = "192.0.2.1", "198.51.100.7"
GOOD = basic().split()[1].encode()
WRONG = basic(password="wrong").split()[1].encode()
BURST = 20


class Bench:
    """An authenticator with clocks that are moved by hand."""

    def __init__(self, **server: object) -> None:
        self.now = 1000.0
        self.by = authenticator(monotonic=lambda: self.now, server=server)

    def login(self, encoded: bytes = GOOD, address: str = HERE) -> str:
        return outcome(lambda: self.by.basic(encoded, address))

    def bearer(self, token: str, address: str = HERE) -> str:
        return outcome(lambda: self.by.bearer(token.encode(), address))

    def websocket(self, token: str, address: str = HERE) -> int:
        headers = [(b"host", b"h"), (b"authorization", b"Bearer " + token.encode())]
        try:
            self.by.websocket(headers, b"", [], v2=True, client=(address, 1))
        except HandshakeRefused as refusal:
            return refusal.status
        return 101

    def tokens(self) -> tuple[str, str]:
        user = self.by.basic(GOOD, THERE)
        assert user is not None
        return self.by.issue(user)


def outcome(attempt: Callable[[], object]) -> str:
    """good, wrong, or refused with the seconds to wait."""
    try:
        return "wrong" if attempt() is None else "good"
    except Throttled as throttled:
        return f"refused {throttled.retry_after_s}"


# --- an attacker


def test_a_burst_is_answered_then_one_guess_every_three_seconds() -> None:
    bench = Bench()
    assert [bench.login(WRONG) for _ in range(BURST)] == ["wrong"] * BURST
    assert [bench.login(WRONG) for _ in range(50)] == ["refused 3"] * 50
    bench.now += 2.5
    assert bench.login(WRONG) == "refused 1"
    bench.now += 0.5
    assert [bench.login(WRONG), bench.login(WRONG)] == ["wrong", "refused 3"]
    bench.now += 3600
    assert [bench.login(WRONG) for _ in range(BURST + 1)] == ["wrong"] * BURST + ["refused 3"]


def test_an_attacker_over_budget_cannot_tell_the_right_password_from_a_wrong_one() -> None:
    bench = Bench()
    for _ in range(BURST):
        bench.login(WRONG)
    for right_first in (True, False):
        for hundredths in range(0, 300, 7):
            bench.now = 1000 + hundredths / 100
            pair = (GOOD, WRONG) if right_first else (WRONG, GOOD)
            answers = [bench.login(encoded) for encoded in pair]
            assert answers == [f"refused {-(-(300 - hundredths) // 100)}"] * 2


def test_refused_guesses_cost_no_more() -> None:
    bench = Bench()
    for _ in range(BURST + 1000):
        bench.login(WRONG)
    bench.now += 3
    assert bench.login(GOOD) == "good"


@pytest.mark.parametrize("shown", ["x.y.z", READER, ""])
def test_wrong_tokens_over_rest_are_guesses(shown: str) -> None:
    bench = Bench()
    assert [bench.bearer(shown) for _ in range(BURST + 1)] == ["wrong"] * BURST + ["refused 3"]


def test_every_wrong_token_is_a_guess() -> None:
    bench = Bench()
    host = (b"host", b"h")
    for _ in range(4):
        assert bench.websocket("wrong") == 403
        with pytest.raises(HandshakeRefused, match="ticket"):
            bench.by.websocket([host], b"ticket=wrong", [], v2=False, client=(HERE, 5))
        assert bench.by.renew(b"wrong", HERE) is None
        assert bench.by.publisher([(b"authorization", b"Bearer wrong")], HERE) is None
        assert bench.by.refresh(b"wrong", HERE) is None
    assert bench.websocket("wrong") == 429
    assert outcome(lambda: bench.by.refresh(b"wrong", HERE)) == "refused 3"
    assert outcome(lambda: bench.by.publisher([(b"authorization", b"Bearer wrong")], HERE)) == "refused 3"
    with pytest.raises(Overloaded) as refused:
        bench.by.renew(b"wrong", HERE)
    assert refused.value.retry_after_ms == 3000
    with pytest.raises(HandshakeRefused) as ticket:
        bench.by.websocket([host], b"ticket=wrong", [], v2=True, client=(HERE, 6))
    assert (ticket.value.status, ticket.value.retry_after) == (429, 3)


def test_an_ipv6_customer_has_one_budget_and_another_has_another() -> None:
    bench = Bench()
    for i in range(BURST):
        bench.login(WRONG, f"2001:db8:1:2:{i:x}::{i:x}")
    assert bench.login(WRONG, "2001:db8:1:2:ffff::1") == "refused 3"
    assert bench.login(WRONG, "2001:db8:1:3::1") == "wrong"


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "20010db800000000/64"),
        ("2001:DB8:0:0:5::1", "20010db800000000/64"),
        ("fe80::1%eth0", "fe80000000000000/64"),
        ("testclient", "testclient"),
        ("x" * 1000, "x" * 64),
        (None, ""),
    ],
)
def test_places(address: str | None, place: str) -> None:
    assert place_of(address) == place


# --- the neighbours


def test_whoever_has_a_token_notices_nothing() -> None:
    bench = Bench()
    access, refresh = bench.tokens()
    for _ in range(BURST * 5):
        bench.websocket("wrong")
        outcome(lambda: bench.by.basic(WRONG, HERE))
    assert (bench.websocket("wrong"), bench.login(WRONG)) == (429, "refused 3")
    assert bench.bearer(access) == "good"
    assert outcome(lambda: bench.by.refresh(refresh.encode(), HERE)) == "good"
    assert [bench.websocket(token) for token in (access, READER, ALPHA, PUBLISHER)] == [101] * 4
    assert bench.by.publisher([(b"authorization", b"Bearer " + PUBLISHER.encode())], HERE) is not None
    assert bench.by.renew(READER.encode(), HERE) is not None


def test_a_ticket_is_good_while_its_address_is_throttled() -> None:
    bench = Bench()
    user = bench.by.basic(GOOD, THERE)
    assert user is not None
    for _ in range(BURST + 5):
        bench.websocket("wrong")
    ticket = bench.by.ticket(user, []).text.encode()
    assert bench.by.websocket([], b"ticket=" + ticket, [], v2=True, client=(HERE, 1)) == user


def test_who_logs_in_by_password_goes_on_beside_an_attacker() -> None:
    bench = Bench()
    assert bench.login() == "good"
    for _ in range(300):
        bench.now += 0.1
        bench.login(WRONG)
        assert bench.login() == "good"
    assert bench.login(WRONG).startswith("refused")
    bench.now += KNOWN_S - 1
    for _ in range(BURST + 1):
        bench.login(WRONG)
    assert bench.login() == "good"


def test_a_login_is_forgotten_after_an_hour_and_known_from_its_place_only() -> None:
    bench = Bench()
    assert (bench.login(), bench.login(address=THERE)) == ("good", "good")
    bench.now += KNOWN_S
    for _ in range(BURST):
        bench.login(WRONG)
    assert bench.login() == "refused 3"
    assert bench.login(address=THERE) == "good"


def test_tokens_do_not_make_a_place_known_for_passwords() -> None:
    bench = Bench()
    access, _ = bench.tokens()
    bench.bearer(access)
    bench.websocket(READER)
    for _ in range(BURST):
        bench.login(WRONG)
    assert bench.login() == "refused 3"


def test_old_tokens_of_a_dashboard_do_not_keep_its_user_from_logging_in() -> None:
    bench = Bench()
    for _ in range(1000):
        bench.bearer("of.another.key")
    assert bench.login() == "good"


def test_a_jwt_of_ours_that_ended_is_no_guess() -> None:
    now_ms = NOW_MS
    by = Authenticator(config(), lambda: now_ms, lambda: 0.0)
    user = by.basic(GOOD, HERE)
    assert user is not None
    access, refresh = (token.encode() for token in by.issue(user))
    now_ms += 15 * 60_000
    assert [by.bearer(access, HERE) for _ in range(100)] == [None] * 100
    assert [by.bearer(refresh, HERE) for _ in range(100)] == [None] * 100
    assert by.statistics()["guesses"] == 0
    assert all(by.refresh(refresh, HERE) for _ in range(100))


def test_right_credentials_and_none_cost_nothing() -> None:
    bench = Bench()
    for _ in range(100):
        bench.login()
        bench.websocket(READER)
        with pytest.raises(HandshakeRefused, match="none"):
            bench.by.websocket([], b"", [], v2=True, client=(HERE, 1))
        assert bench.by.publisher([], HERE) is None
    assert bench.by.statistics()["guesses"] == 0


# --- what is short can be guessed, whatever it is called


def test_a_short_token_is_judged_like_a_password() -> None:
    bench = Bench(ws_token=(Secret("short"), Secret(READER)))
    assert bench.websocket("short", THERE) == 101
    for address in (HERE, THERE):
        for _ in range(BURST):
            bench.websocket("wrong", address)
    assert [bench.websocket("short", address) for address in (HERE, THERE)] == [429, 101]
    assert bench.websocket(READER) == 101


def test_a_jwt_of_a_short_key_too_and_no_expired_one_gives_the_key_away() -> None:
    bench = Bench(jwt_secret_key=Secret("short"))
    user = bench.by.basic(GOOD, THERE)
    assert user is not None
    access, refresh = bench.by.issue(user)
    for _ in range(BURST):
        bench.bearer("wrong")
    assert [bench.bearer(token) for token in (access, refresh)] == ["refused 3"] * 2
    assert [bench.bearer(token, THERE) for token in (access, refresh)] == ["good", "wrong"]


def test_a_generated_password_cannot_be_guessed_so_it_is_always_taken() -> None:
    bench = Bench(password=Secret("x" * 43))
    good = basic(password="x" * 43).split()[1].encode()
    for _ in range(BURST):
        bench.login(WRONG)
    assert (bench.login(WRONG), bench.login(good)) == ("refused 3", "good")


# --- bounds


def test_a_budget_cannot_be_reset_by_crowding_it_out() -> None:
    budget = GuessBudget(20, 20, places=50, slots=4096)
    for _ in range(20):
        budget.spend("attacker", 0.0)
    for i in range(500):
        budget.spend(f"bot {i}", 0.1)
    assert len(budget) == 50
    assert budget.wait_s("attacker", 0.1) == 3
    budget.spend("attacker", 3.0)
    assert budget.wait_s("attacker", 3.0) == 3


def test_strangers_are_hardly_touched_by_that() -> None:
    budget = GuessBudget(20, 20, places=50, slots=4096)
    for i in range(200):
        for _ in range(20):
            budget.spend(f"bot {i}", 0.0)
    touched = sum(budget.wait_s(f"stranger {i}", 0.0) > 0 for i in range(1000))
    assert touched < 150


def test_buckets_that_are_full_again_are_not_kept() -> None:
    budget = GuessBudget(60, 10)
    for i in range(100):
        budget.spend(f"a {i}", float(i))
    assert len(budget) == 1


def test_a_budget_is_a_token_bucket() -> None:
    rng = random.Random(7)
    budget, now, left, at = GuessBudget(30, 5), 0.0, 5.0, 0.0
    for _ in range(2000):
        now += rng.choice((0.0, 0.25, 1.0, 2.0, 30.0))
        left, at = min(5.0, left + (now - at) / 2), now
        assert (budget.wait_s("a", now) == 0) == (left >= 1)
        if left >= 1:
            budget.spend("a", now)
            left -= 1


def test_known_logins_are_bounded() -> None:
    known = KnownLogins(limit=2)
    for place in ("a", "b", "a", "c"):
        known.remember(place, "u", 0.0)
    assert [known.has(place, "u", 1.0) for place in "abc"] == [True, False, True]
    assert not known.has("a", "other", 1.0)
    assert len(known) == 2


def test_the_figures() -> None:
    bench = Bench()
    bench.login()
    for address in (HERE, THERE):
        for _ in range(BURST + 1):
            bench.login(WRONG, address)
    bench.bearer("wrong")
    assert bench.by.statistics() == {
        "tickets": 0,
        "tickets_limit": 1024,
        "guesses": 41,
        "throttled": 2,
        "addresses": 3,
        "addresses_limit": 20_000,
        "known_logins": 1,
        "known_logins_limit": 1024,
    }


def test_an_attack_is_one_line_a_minute_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    with caplog.at_level(logging.WARNING, "tradewire.auth"):
        for i in range(40):
            for _ in range(BURST + 5):
                bench.login(WRONG, f"192.0.2.{i}")
            bench.now += 2
    assert len(caplog.records) == 2
    assert caplog.messages[0] == "too many wrong credentials, answered 429: now from 192.0.2.0"
    assert JWT_KEY not in caplog.text


def test_the_limits_are_configured() -> None:
    by = authenticator(throttle=Limits(per_minute=1, burst=2))
    assert [outcome(lambda: by.basic(WRONG, HERE)) for _ in range(3)] == ["wrong", "wrong", "refused 60"]
