"""The `publish` of a client: its items, and the one reply when the last of them is answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hub.core.requests import request_id
from hub.core.session import Session
from hub.protocol.envelope import reply, reply_error
from hub.protocol.errors import NotAMessage, RequestError

__all__ = ["PublishRequest"]


class PublishRequest:
    """One request; `items` are what it wants to publish, each to be answered once, in any order.

    It counts as `unanswered` of its session until the reply is told. `answered` at once when it has no items, or more than
    `limit`, which are refused together.

    Raises:
        NotAMessage: it has no id to reply to.
    """

    __slots__ = ("_batch", "_left", "_number", "_results", "_session", "items")

    def __init__(self, session: Session, message: Mapping[str, Any], limit: int) -> None:
        number = request_id(message)
        if number is None:
            raise NotAMessage("publish: expected an id")
        data = message.get("data")
        batch = data["items"] if isinstance(data, Mapping) and "items" in data else None
        self._session = session
        self._number = number
        self._batch = batch is not None
        self.items: list[Any] = batch if isinstance(batch, list) else [data]
        self._results: list[Mapping[str, Any] | RequestError | None] = [None] * len(self.items)
        self._left = len(self.items)
        session.unanswered += 1
        if len(self.items) > limit:
            self._refuse(RequestError(f"items: expected at most {limit}, got {len(self.items)}"))
        elif not self.items:
            self._reply()

    @property
    def answered(self) -> bool:
        """Whether the session was told the reply."""
        return self._left == 0

    def answer(self, index: int, result: Mapping[str, Any] | RequestError) -> bool:
        """What became of an item; whether that was the last, so that the session has the reply now."""
        self._results[index] = result
        self._left -= 1
        if self._left:
            return False
        self._reply()
        return True

    def _refuse(self, error: RequestError) -> None:
        self.items, self._results, self._left, self._batch = [], [error], 0, False
        self._reply()

    def _reply(self) -> None:
        self._session.unanswered -= 1
        answers = [{"error": r.as_data()} if isinstance(r, RequestError) else r for r in self._results]
        if self._batch:
            self._session.tell(reply(self._number, answers))
        elif isinstance(self._results[0], RequestError):
            self._session.tell(reply_error(self._number, self._results[0].as_data()))
        else:
            self._session.tell(reply(self._number, answers[0]))
