"""How many wrong credentials an address may show, and who is let in beside an attacker.

Theory of operation
===================
Each wrong credential costs the client's address one token of a bucket (`GuessBudget`); passwords and tokens have a bucket each,
so that a dashboard with tokens of yesterday does not stop its own user's login. An address is an IPv4 address or the /64 of an
IPv6 address, which is what one customer gets. With the bucket empty the address is *over budget*, and every wrong credential is
answered 429.

What a right credential is worth meanwhile depends on whether it can be guessed:

- **Nobody guesses 128 bits.** A token, or a JWT whose key is long (`hub.config.is_guessable` says no), is accepted always. That
  an attacker over budget would see a right guess is no harm: there will be none. So whoever polls with a token beside an
  attacker (one NAT, one proxy) notices nothing; neither does FreqUI, which has a refresh token for 30 days.
- **A password is guessed sooner or later** (and so is a token of less than 32 bytes), at the pace at which guesses are answered.
  So an address over budget gets 429 for the right one too: after the same comparison, with the same Retry-After, without a
  trace in the budget. It learns nothing.
- **But a client that logs in with each request** (freqtrade-client) must not be locked out by its neighbour. Therefore a good
  login is remembered for KNOWN_S, for that address and user: from there the right password is accepted, over budget or not.

The price of the last rule: while the user of an address is logged in by password, a neighbour behind the very same address may
guess that password as fast as the hub answers. No rule can tell the two apart but by the password itself, and any limit that
the neighbour can use up is a lock-out. The rule is narrow on purpose: JWTs do not make an address known, another address gains
nothing, and off loopback a password has at least 12 characters that are no known default (hub.config.strength). Behind a reverse
proxy everybody has one address, unless `hub.trusted_proxies` names the proxy.

What is no guess: no credential at all, a Basic that cannot be read, a right credential without the right to something, and a JWT
of ours that has ended or is of the other kind (a FreqUI that wakes up shows a dozen of them at once, and needs its 401).

Bounds: ADDRESSES buckets of each kind and KNOWN logins; the least recently used leave. A bucket that leaves takes nothing with
it: what it owed is kept in one of SLOTS shared slots, by the hash of its address (siphash with the process's own key), and an
address that comes, or comes back, begins with what its slot owes. So no budget is reset by crowding it out; with
very many addresses of one's own one can only make strangers begin with less. A login is remembered only for who knows
the password, so nobody else can crowd those out.
"""

from __future__ import annotations

import ipaddress
import logging
import math
from array import array
from collections import OrderedDict
from collections.abc import Callable

from hub.protocol.errors import HubError

__all__ = ["GuessBudget", "KnownLogins", "Throttle", "Throttled", "place_of"]

ADDRESSES = 10_000
SLOTS = 4096
KNOWN = 1024
KNOWN_S = 3600.0
LOG_S = 60.0
_LONGEST_PLACE = 64
logger = logging.getLogger("tradewire.auth")


class Throttled(HubError):
    """The client's: its address showed too many wrong credentials. Answered 429 with `retry_after_s` (whole seconds)."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("too many wrong credentials from this address; try again later")
        self.retry_after_s = retry_after_s


def place_of(address: str | None) -> str:
    """What shares a budget: an IPv4 address (also when mapped into IPv6), the /64 of an IPv6 address, else the text itself.

    None, a server that does not tell, is one place.
    """
    if address is None:
        return ""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return address[:_LONGEST_PLACE]
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ip.ipv4_mapped or f"{ip.packed[:8].hex()}/64")


class GuessBudget:
    """A token bucket per place: `burst` guesses, `per_minute` more a minute. `now` is in monotonic seconds.

    A bucket is one number, the time at which it will be full again. Those that are full are not kept.
    """

    def __init__(self, per_minute: int, burst: int, *, places: int = ADDRESSES, slots: int = SLOTS) -> None:
        self._interval = 60.0 / per_minute
        self._span = self._interval * burst
        self._limit = places
        self._full_at: OrderedDict[str, float] = OrderedDict()
        self._slots = array("d", bytes(8 * slots))

    def __len__(self) -> int:
        return len(self._full_at)

    def wait_s(self, place: str, now: float) -> int:
        """0 within the budget, else the whole seconds until one more guess is."""
        wait = self._owed_until(place) - (now + self._span - self._interval)
        # Below a microsecond it is the clock's rounding.
        return max(1, math.ceil(wait)) if wait > 1e-6 else 0

    def spend(self, place: str, now: float) -> None:
        """Count one wrong credential."""
        full_at = max(now, self._owed_until(place)) + self._interval
        self._full_at[place] = min(full_at, now + self._span)
        self._full_at.move_to_end(place)
        while len(self._full_at) > self._limit or self._oldest_is_full(now):
            self._let_go(*self._full_at.popitem(last=False))

    def _owed_until(self, place: str) -> float:
        own = self._full_at.get(place)
        return self._slots[hash(place) % len(self._slots)] if own is None else own

    def _oldest_is_full(self, now: float) -> bool:
        return next(iter(self._full_at.values())) <= now

    def _let_go(self, place: str, full_at: float) -> None:
        slot = hash(place) % len(self._slots)
        self._slots[slot] = max(self._slots[slot], full_at)


class KnownLogins:
    """From which place which user logged in well within the last KNOWN_S seconds. `now` is in monotonic seconds."""

    def __init__(self, limit: int = KNOWN) -> None:
        self._limit = limit
        self._until: OrderedDict[tuple[str, str], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def has(self, place: str, name: str, now: float) -> bool:
        """Whether this login is remembered."""
        return now < self._until.get((place, name), 0.0)

    def remember(self, place: str, name: str, now: float) -> None:
        """A good login was made."""
        self._until[(place, name)] = now + KNOWN_S
        self._until.move_to_end((place, name))
        if len(self._until) > self._limit:
            self._until.popitem(last=False)


class Throttle:
    """The budgets of one hub. `clock` gives monotonic seconds; `per_minute` and `burst` are of each place and kind."""

    def __init__(self, per_minute: int, burst: int, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.passwords = GuessBudget(per_minute, burst)
        self.tokens = GuessBudget(per_minute, burst)
        self._known = KnownLogins()
        self._guesses = 0
        self._refused = 0
        self._logged_at = -math.inf

    def judge(self, budget: GuessBudget, address: str | None, name: str | None, *, guessable: bool) -> None:
        """Judge a credential that was compared already: `name` is whose it is, None when it is nobody's.

        Raises:
            Throttled: the address is over `budget`, and the credential is wrong, or right and guessable from an unknown place.
        """
        if name is not None and not guessable:
            return
        place, now = place_of(address), self._clock()
        wait_s = budget.wait_s(place, now)
        if wait_s and (name is None or not self._known.has(place, name, now)):
            self._refuse(place, now, wait_s)
        if name is None:
            self._guesses += 1
            budget.spend(place, now)
        else:
            self._known.remember(place, name, now)

    def _refuse(self, place: str, now: float, wait_s: int) -> None:
        self._refused += 1
        # At most a line a minute, whoever attacks from however many addresses.
        if now - self._logged_at >= LOG_S:
            self._logged_at = now
            logger.warning("too many wrong credentials, answered 429: now from %s", place or "unknown")
        raise Throttled(wait_s)

    def statistics(self) -> dict[str, int]:
        """Wrong credentials and refusals since the start; what is remembered now, with its bounds."""
        return {
            "guesses": self._guesses,
            "throttled": self._refused,
            "addresses": len(self.passwords) + len(self.tokens),
            "addresses_limit": 2 * ADDRESSES,
            "known_logins": len(self._known),
            "known_logins_limit": KNOWN,
        }
