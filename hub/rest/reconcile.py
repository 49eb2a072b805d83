"""POST /reconcile: compare the ledger with a bot's own trades now, and with `publish` store what it missed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Body, Depends, FastAPI, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from hub.bots.registry import BotRegistry
from hub.protocol.errors import Forbidden
from hub.protocol.ledger_answers import Reconciliation
from hub.protocol.principal import Principal
from hub.rest.moments import Moment
from hub.rest.schemas import responses

__all__ = ["Reconcile", "add_reconcile"]

_SECURITY: dict[str, Any] = {"security": [{"HTTPBasic": []}, {"OAuth2PasswordBearer": []}]}


class Reconcile(Protocol):
    """Compares the ledger with a bot's trades (hub.reconciler.Reconciler.run)."""

    async def __call__(
        self, name: str, *, publish: bool = False, since_ms: int | None = None
    ) -> Reconciliation:
        """Raises UnknownBot, BotError and BotUnavailable."""


class ReconcileOrder(BaseModel):
    """`bot`: of the path, or the default bot, when left out. `since`: from when on, in place of the hub's own choice."""

    model_config = ConfigDict(extra="forbid")

    bot: Annotated[str, Field(max_length=64)] | None = None
    publish: bool = False
    since: Moment | None = None


def add_reconcile(
    app: FastAPI,
    known: Callable[[Request], Awaitable[Principal]],
    registry: BotRegistry,
    reconcile: Reconcile,
) -> None:
    """Add the route. `known` authenticates as for the routes of a bot."""
    user = Depends(known)
    described = responses(Reconciliation, body=True)
    described[403] = {"description": "Who asks may not control this bot."}

    @app.post(
        "/reconcile",
        tags=["Hub"],
        operation_id="reconcile",
        summary="Compares the ledger with the bot's own trades; with `publish` stores the fills that it missed.",
        responses=described,
        openapi_extra=_SECURITY,
        response_model=None,
    )
    async def reconcile_bot(
        request: Request,
        order: Annotated[ReconcileOrder, Body()],
        principal: Principal = user,
    ) -> Response:
        name = request.path_params.get("bot") or order.bot or registry.default_bot
        if not principal.may_control(name):
            raise Forbidden(f"{principal.name} may not control {name!r}")
        answer = await reconcile(name, publish=order.publish, since_ms=order.since)
        return Response(msgspec.json.encode(answer), media_type="application/json")
