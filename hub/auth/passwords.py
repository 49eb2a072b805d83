"""The one user's name and password, as HTTP Basic carries them."""

from __future__ import annotations

import base64
import binascii
import hmac

from hub.config import Secret

__all__ = ["MalformedBasic", "PasswordCheck"]


class MalformedBasic(ValueError):
    """The part behind `Basic` is not the base64 of `user:password`."""


class PasswordCheck:
    """Compares a user and password with the configured ones, in constant time on bytes.

    RFC 7617 leaves the charset open: clients send UTF-8 or, like `requests`, Latin-1; both are taken.
    """

    def __init__(self, username: str, password: Secret) -> None:
        text = f"{username}:{password.reveal()}"
        forms = [text.encode("utf-8", "surrogatepass")]
        try:
            forms.append(text.encode("latin-1"))
        except UnicodeEncodeError:
            pass
        self._forms = forms

    def __call__(self, encoded: bytes) -> bool:
        """Whether `encoded`, the base64 of HTTP Basic, is the user.

        Raises:
            MalformedBasic: not base64, or without a colon.
        """
        try:
            given = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise MalformedBasic("expected the base64 of user:password") from None
        if b":" not in given:
            raise MalformedBasic("expected a colon between user and password")
        # A name has no colon, so comparing the two at once is the same and tells less.
        same = False
        for form in self._forms:
            same |= hmac.compare_digest(form, given)
        return same
