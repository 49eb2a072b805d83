"""The parameters of an operation for FastAPI: declared as freqtrade declares its own, so that its errors (422) are the same.

What is read off BotAPI's signatures becomes pydantic's: `Meta(ge=)` a bound of the query, the body's fields a model named as
freqtrade's, and a time must have an offset. Beyond freqtrade, numbers must be finite and a list has at most LIST_ITEMS items: each
wrong one is repeated in the answer.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import Body, Path, Query
from msgspec import NODEFAULT, Meta
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, create_model

from hub.protocol.botapi import OPERATIONS
from hub.protocol.operations import Operation, Parameter, Place

__all__ = ["LIST_ITEMS", "arguments_of", "declared"]

LIST_ITEMS = 1000
_BODY = "payload"
_CONFIG = ConfigDict(allow_inf_nan=False)
_MODELS = {
    "force_enter": "ForceEnterPayload",
    "force_exit": "ForceExitPayload",
    "add_to_blacklist": "BlacklistPayload",
    "add_locks": "LocksPayload",
    "delete_locks": "DeleteLockRequest",
    "chosen_pair_candles": "PairCandlesRequest",
}


def declared(operation: Operation) -> list[inspect.Parameter]:
    """The parameters of a function that takes what `operation` takes, to be validated by FastAPI."""
    own = [_single(p) for place in (Place.PATH, Place.QUERY) for p in operation.of(place)]
    if operation.of(Place.BODY):
        own.append(_keyword(_BODY, Annotated[_body_type(operation.name), Body()]))
    return own


def arguments_of(operation: Operation, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `operation` from the values of its declared parameters."""
    fields = operation.of(Place.BODY)
    if not fields:
        return dict(given)
    body = given[_BODY]
    arguments = {name: value for name, value in given.items() if name != _BODY}
    if operation.whole_body:
        (struct,) = typing.get_args(fields[0].type)
        return arguments | {fields[0].name: [struct(**dict(item)) for item in body]}
    return arguments | dict(body)


def _keyword(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def _single(parameter: Parameter) -> inspect.Parameter:
    kind, bounds = _split(parameter.type)
    place = Path(**bounds) if parameter.place is Place.PATH else Query(**bounds)
    default = parameter.default if not parameter.required else inspect.Parameter.empty
    return _keyword(parameter.name, Annotated[kind, place], default)


def _split(annotation: Any) -> tuple[Any, dict[str, Any]]:
    """A type without msgspec's Meta, and what that said."""
    if typing.get_origin(annotation) is not Annotated:
        return annotation, {}
    kind, *notes = typing.get_args(annotation)
    bounds = {name: getattr(note, name) for note in notes if isinstance(note, Meta) for name in ("ge", "le")}
    return kind, {name: bound for name, bound in bounds.items() if bound is not None}


@functools.cache
def _body_type(name: str) -> Any:
    operation = OPERATIONS[name]
    fields = operation.of(Place.BODY)
    name = _MODELS[name]
    if not operation.whole_body:
        return _model(name, {p.name: (p.type, p.default) for p in fields})
    (struct,) = typing.get_args(fields[0].type)
    item = _model(name, {f.name: (f.type, f.default) for f in msgspec.structs.fields(struct)})
    return Annotated[list[item], Field(max_length=LIST_ITEMS)]  # type: ignore[valid-type]


def _model(name: str, fields: Mapping[str, tuple[Any, Any]]) -> type[BaseModel]:
    made: dict[str, Any] = {
        field: (_field_type(kind), ... if default is NODEFAULT else default)
        for field, (kind, default) in fields.items()
    }
    return create_model(name, __config__=_CONFIG, **made)


def _field_type(kind: Any) -> Any:
    if kind is datetime:
        return AwareDatetime
    if list in (typing.get_origin(one) for one in (kind, *typing.get_args(kind))):
        return Annotated[kind, Field(max_length=LIST_ITEMS)]
    return kind
