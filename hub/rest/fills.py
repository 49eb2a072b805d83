"""GET /fills: pages through the ledger, as far as who asks may read it.

A bot that one may not read is answered as one that does not exist: with nothing. A page has at most `limit` messages and about 1 MiB,
and `after` leads to the next. A client that gives the `epoch` of its cursor back is told (409) when the ledger is another one.

The search runs beside the loop (hub.core.ledger.Log.find), and each within SEARCH_S seconds: else 503, as where too many run at once
or the ledger cannot be read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Depends, FastAPI, HTTPException, Query, Request
from pydantic import AfterValidator
from starlette.responses import Response

from hub.core import ledger
from hub.core.entry import Entry
from hub.core.ledger import Damaged, Found
from hub.protocol.ledger_answers import FillsPage, LedgerFill, OtherLedger
from hub.protocol.messages import LEDGER_TOPICS
from hub.protocol.principal import Principal
from hub.rest.moments import Moment
from hub.rest.schemas import RETRY, UNAUTHORIZED, Detail, described

__all__ = ["LedgerSource", "add_fills"]

SEARCH_S = 10.0
NAMES = 64
PAGE_BYTES = 1 << 20
_DEFAULT_TOPICS = frozenset({"entry_fill", "exit_fill"})
_LAST_OFFSET = 2**53 - 1
_SECURITY: dict[str, Any] = {
    "security": [{"HTTPBasic": []}, {"OAuth2PasswordBearer": []}, {"ReaderToken": []}]
}


class LedgerSource(Protocol):
    """What is asked of the node."""

    @property
    def epoch(self) -> str:
        """The ledger's epoch."""

    async def search(self, query: ledger.Query) -> Found:
        """Search the ledger for a client. Raises LedgerUnreadable, or LedgerBusy, which is one."""


def _topic(name: str) -> str:
    if name != "*" and name not in LEDGER_TOPICS:
        raise ValueError(f"expected * or a ledger topic: {', '.join(sorted(LEDGER_TOPICS))}")
    return name


_Names = Annotated[list[str] | None, Query(max_length=NAMES)]
_Topics = Annotated[list[Annotated[str, AfterValidator(_topic)]] | None, Query(max_length=NAMES)]
_Offset = Annotated[int, Query(ge=0, le=_LAST_OFFSET)]
_Limit = Annotated[int, Query(ge=1, le=500)]


def add_fills(app: FastAPI, reader: Callable[[Request], Awaitable[Principal]], source: LedgerSource) -> None:
    """Add the route. `reader` authenticates whoever may read: the user, and the tokens that websockets take."""
    user = Depends(reader)

    @app.get(
        "/fills",
        tags=["Hub"],
        operation_id="fills",
        summary="Pages through the ledger: fills, or with `topic` other ledger messages, oldest first.",
        responses={
            200: described("Successful Response", FillsPage),
            401: UNAUTHORIZED,
            409: described("The ledger is another one than that of `epoch`.", OtherLedger),
            503: described(
                "Too many searches, this one took too long, or the ledger cannot be read now.", Detail
            )
            | {"headers": RETRY},
        },
        openapi_extra=_SECURITY,
        response_model=None,
    )
    async def fills(
        request: Request,
        principal: Principal = user,
        bot: _Names = None,
        since: Annotated[Moment | None, Query()] = None,
        until: Annotated[Moment | None, Query()] = None,
        after: _Offset = 0,
        topic: _Topics = None,
        limit: _Limit = 500,
        epoch: Annotated[str | None, Query(max_length=64)] = None,
    ) -> Response:
        of_path = request.path_params.get("bot")
        query = ledger.Query(
            after=after,
            bots=_readable(principal, bot if of_path is None else [of_path]),
            topics=_topics(topic),
            since_ms=since,
            until_ms=until,
            limit=limit,
            limit_bytes=PAGE_BYTES,
        )
        try:
            async with asyncio.timeout(SEARCH_S):
                found = await source.search(query)
        except TimeoutError:
            raise HTTPException(503, "the search took too long", {"Retry-After": "1"}) from None
        if epoch is not None and epoch != source.epoch:
            return _other_epoch(epoch, source.epoch, found)
        return Response(msgspec.json.encode(_page(source.epoch, found)), media_type="application/json")


def _readable(principal: Principal, named: Sequence[str] | None) -> frozenset[str] | None:
    if named is not None:
        return frozenset(name for name in named if principal.may_read(name))
    return None if "*" in principal.reads else principal.reads


def _topics(named: Sequence[str] | None) -> frozenset[str] | None:
    if named is None:
        return _DEFAULT_TOPICS
    return None if "*" in named else frozenset(named)


def _other_epoch(asked: str, epoch: str, found: Found) -> Response:
    detail = f"the ledger's epoch is {epoch}, not {asked!r}: begin again without after and epoch"
    other = OtherLedger(detail=detail, epoch=epoch, floor=found.floor, head=found.head)
    return Response(msgspec.json.encode(other), 409, media_type="application/json")


def _page(epoch: str, found: Found) -> FillsPage:
    return FillsPage(
        epoch=epoch,
        floor=found.floor,
        head=found.head,
        fills=[_fill(entry) for entry in found.entries if isinstance(entry, Entry)],
        damaged=[entry.offset for entry in found.entries if isinstance(entry, Damaged)],
        after=found.after,
    )


def _fill(entry: Entry) -> LedgerFill:
    return LedgerFill(
        offset=entry.offset,
        prev=entry.prev,
        bot=entry.bot,
        topic=entry.topic,
        ts=entry.ts,
        mid=entry.mid,
        # As published: what is decoded and encoded anew may come out otherwise.
        data=msgspec.Raw(entry.body),
    )
