"""The rule that an address open to other machines takes strong credentials: long, and no known default."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from hub.config.kinds import Warn
from hub.config.secret import MIN_SECRET_BYTES, Secret
from hub.config.sections import Config, client_tokens
from hub.protocol.errors import ConfigError

__all__ = ["check_open", "check_strength", "is_guessable", "is_loopback"]

MIN_PASSWORD_CHARACTERS = 12

# Secrets that were printed in documentation or shipped in an example, so everybody knows them. Compared casefolded.
KNOWN_DEFAULTS = frozenset(
    {
        "changeme",
        "freqtrade",
        "freqtrader",
        "hellotoken",
        "password",
        "sameone",
        "secret_ws_t0ken",
        "secret_ws_t0ken.",
        "secret_ws_token",
        "sercet_ws_t0ken",
        "somethingrandom",
        "somethingrandomsomethingrandom123",
        "super1234",
        "supersecret1!",
        "supersecretpassword",
        "supersecurepassword",
    }
)


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches `address`: 127.0.0.0/8, ::1 (also mapped) and localhost."""
    if address == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return (mapped or ip).is_loopback


def is_guessable(secret: Secret) -> bool:
    """Whether a machine could try its way to `secret`: it is shorter than 32 bytes, or publicly known."""
    return len(secret) < MIN_SECRET_BYTES or secret.reveal().casefold() in KNOWN_DEFAULTS


def check_strength(config: Config, warn: Warn) -> None:
    """Warns of weak credentials on a loopback address.

    Raises:
        ConfigError: names the first weak one, on any other address, or when a proxy lets other machines in.
    """
    weak = list(_weak(config))
    if not weak:
        return
    address = config.api_server.listen_ip_address
    key, expected = weak[0]
    if not is_loopback(address):
        raise ConfigError(key, f"expected {expected}, since {address} is open to other machines")
    if config.hub.trusted_proxies:
        raise ConfigError(key, f"expected {expected}, since hub.trusted_proxies lets other machines in")
    keys = ", ".join(key for key, _ in weak)
    warn(f"{keys}: too short or publicly known; good enough for {address}, refused on any other address")


def check_open(config: Config) -> None:
    """Refuses weak credentials wherever it listens.

    Raises:
        ConfigError: names the first weak one.
    """
    for key, expected in _weak(config):
        raise ConfigError(key, f"expected {expected}, since a server of others may be open to other machines")


def _weak(config: Config) -> Iterator[tuple[str, str]]:
    """Every credential that would not do for other machines, with what is expected of it."""
    strong = f"a secret of at least {MIN_SECRET_BYTES} bytes that is no known default"
    for key, token in [
        ("api_server.jwt_secret_key", config.api_server.jwt_secret_key),
        *client_tokens(config),
    ]:
        # An empty ws_token is none: it lets nobody in.
        if len(token) and is_guessable(token):
            yield key, strong
    password = config.api_server.password.reveal()
    if len(password) < MIN_PASSWORD_CHARACTERS or password.casefold() in KNOWN_DEFAULTS:
        yield (
            "api_server.password",
            f"at least {MIN_PASSWORD_CHARACTERS} characters that are no known default",
        )
