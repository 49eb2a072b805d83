"""hub.auth.tickets: once, for 30 s, for one page, within a bound."""

from __future__ import annotations

import pytest

from hub.auth.tickets import LIFETIME_MS, TicketStore
from hub.protocol.errors import Overloaded
from hub.protocol.principal import Principal

NOW_MS = 1_795_000_000_000
PAGE, OTHER = b"https://a.example", b"https://b.example"


def user(expires_ms: int | None = None) -> Principal:
    return Principal(name="user:u", expires_ms=expires_ms)


def test_a_ticket_is_good_once() -> None:
    store = TicketStore()
    ticket = store.issue(user(), None, NOW_MS)
    assert len(ticket.text) >= 43
    assert store.redeem(ticket.text.encode(), None, NOW_MS) == user()
    assert store.redeem(ticket.text.encode(), None, NOW_MS) is None
    assert store.redeem(b"", None, NOW_MS) is None


def test_a_ticket_is_good_for_half_a_minute() -> None:
    store = TicketStore()
    late, early = store.issue(user(), None, NOW_MS), store.issue(user(), None, NOW_MS)
    assert late.expires_ms == NOW_MS + LIFETIME_MS == NOW_MS + 30_000
    assert store.redeem(late.text.encode(), None, NOW_MS + 30_000) is None
    assert store.redeem(early.text.encode(), None, NOW_MS + 29_999) == user()


def test_a_ticket_does_not_outlive_the_jwt_that_asked_for_it() -> None:
    store = TicketStore()
    ticket = store.issue(user(NOW_MS + 5000), None, NOW_MS)
    assert ticket.expires_ms == NOW_MS + 5000
    assert store.redeem(ticket.text.encode(), None, NOW_MS + 5000) is None


@pytest.mark.parametrize("shown", [None, OTHER, b"null", PAGE + b", " + PAGE])
def test_another_page_uses_a_ticket_up_and_gets_nothing(shown: bytes | None) -> None:
    store = TicketStore()
    ticket = store.issue(user(), PAGE, NOW_MS).text.encode()
    assert store.redeem(ticket, shown, NOW_MS) is None
    assert store.redeem(ticket, PAGE, NOW_MS) is None


def test_a_ticket_without_a_page_is_for_any() -> None:
    store = TicketStore()
    ticket = store.issue(user(), None, NOW_MS).text.encode()
    assert store.redeem(ticket, OTHER, NOW_MS) == user()


def test_the_store_is_bounded_and_forgets_what_ended() -> None:
    store = TicketStore(limit=3)
    for i in range(3):
        store.issue(user(), None, NOW_MS + i)
    with pytest.raises(Overloaded) as refused:
        store.issue(user(), None, NOW_MS + 10_000)
    assert (refused.value.temporary, refused.value.retry_after_ms) == (True, 20_000)
    assert len(store) == 3
    store.issue(user(), None, NOW_MS + LIFETIME_MS)
    assert len(store) == 3


def test_the_store_holds_no_ticket_in_the_clear() -> None:
    store = TicketStore()
    ticket = store.issue(user(), None, NOW_MS).text
    assert ticket not in str(vars(store))
