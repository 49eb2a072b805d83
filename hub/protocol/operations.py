"""Operations: what a bot can be asked over REST, read off the methods of a protocol class.

A method of BotAPI says its route with `get`, `post` or `delete`; its signature says the parameters and their types, its return
annotation the answer. Everything that must know of operations (the REST routes, calls over the websocket, the command line)
reads this one table, so none can differ from it.

A parameter named in the path is of the path; the others are of the query for GET and DELETE, and fields of the JSON body for
POST. With `whole_body` the only parameter that is left is the body itself.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec
from msgspec import NODEFAULT

__all__ = ["BadArguments", "Operation", "Parameter", "Place", "Table", "delete", "get", "post"]

_ROUTE = "__tradewire_route__"
_IN_BRACES = re.compile(r"\{(\w+)\}")
Method = TypeVar("Method", bound=Callable[..., Any])


class BadArguments(ValueError):
    """The request's: a parameter is missing or of another type. The text names it and what was expected."""


class Place(StrEnum):
    """Where a parameter is."""

    PATH = "path"
    QUERY = "query"
    BODY = "body"


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation; `type` is its annotation, `default` NODEFAULT where it must be given."""

    name: str
    place: Place
    type: Any
    default: Any = NODEFAULT

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return self.default is NODEFAULT


class _Route(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    paths: tuple[str, ...]
    tag: str
    whole_body: bool


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One operation: `name` is the method's, `paths` are relative to /api/v1, the first is its own and the rest are aliases."""

    name: str
    method: str
    paths: tuple[str, ...]
    tag: str
    summary: str
    parameters: tuple[Parameter, ...]
    answer: Any
    whole_body: bool = False

    @property
    def path(self) -> str:
        """The path, with parameters in braces."""
        return self.paths[0]

    @property
    def reads(self) -> bool:
        """Whether it only reads, so that repeating it is harmless."""
        return self.method == "GET"

    def of(self, place: Place) -> tuple[Parameter, ...]:
        """The parameters of a place."""
        return tuple(p for p in self.parameters if p.place is place)

    def request(self, arguments: Mapping[str, Any]) -> tuple[str, str, Any]:
        """The path, the query and the JSON body (None: no body) that carry `arguments`; values of None are left out."""
        given = {name: value for name, value in arguments.items() if value is not None}
        path = _IN_BRACES.sub(lambda found: quote(str(given[found[1]]), safe=""), self.path)
        query = urlencode(
            [(p.name, _text(v)) for p in self.of(Place.QUERY) for v in _values(given.get(p.name))],
            quote_via=quote,
        )
        body = self.of(Place.BODY)
        if not body:
            return path, query, None
        if self.whole_body:
            return path, query, msgspec.to_builtins(given.get(body[0].name))
        return path, query, {p.name: msgspec.to_builtins(given[p.name]) for p in body if p.name in given}

    def arguments(self, path: Mapping[str, str], query: str, body: Any) -> dict[str, Any]:
        """The arguments that a request carries, converted and checked; `body` is the decoded JSON, None for none.

        Raises:
            BadArguments: one is missing or cannot be converted.
        """
        texts = parse_qsl(query, keep_blank_values=True)
        values = {p.name: _converted(p, path[p.name], strict=False) for p in self.of(Place.PATH)}
        values |= {p.name: _from_query(p, texts) for p in self.of(Place.QUERY)}
        return values | self._from_body(body)

    def _from_body(self, body: Any) -> dict[str, Any]:
        fields = self.of(Place.BODY)
        if self.whole_body:
            return {fields[0].name: _converted(fields[0], body, strict=True)}
        given = {} if body is None or not fields else body
        if not isinstance(given, Mapping):
            raise BadArguments("body: expected a map")
        return {
            p.name: _converted(p, given[p.name], strict=True) if p.name in given else _default(p)
            for p in fields
        }


class Table(dict[str, Operation]):
    """The operations of a protocol class by name; `find` looks one up by route."""

    def __init__(self, protocol: type) -> None:
        super().__init__()
        for name, function in vars(protocol).items():
            route = getattr(function, _ROUTE, None)
            if route is not None:
                self[name] = _operation(name, function, route)
        # A path without parameters goes first: /trades/open/custom-data is no trade called "open".
        patterns = [(op.method, path, op) for op in self.values() for path in op.paths]
        patterns.sort(key=lambda item: item[1].count("{"))
        self._patterns = [(method, _pattern(path), op) for method, path, op in patterns]

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation of a request and the values in its path; `path` is relative to /api/v1 and percent-encoded."""
        for known, pattern, operation in self._patterns:
            if known == method and (match := pattern.fullmatch(path)):
                return operation, {name: unquote(value) for name, value in match.groupdict().items()}
        return None


def get(*paths: str, tag: str) -> Callable[[Method], Method]:
    """The operation is `GET paths[0]`."""
    return _routed("GET", paths, tag, whole_body=False)


def post(*paths: str, tag: str, whole_body: bool = False) -> Callable[[Method], Method]:
    """The operation is `POST paths[0]`; its parameters are fields of the body, or the body itself with `whole_body`."""
    return _routed("POST", paths, tag, whole_body=whole_body)


def delete(*paths: str, tag: str) -> Callable[[Method], Method]:
    """The operation is `DELETE paths[0]`."""
    return _routed("DELETE", paths, tag, whole_body=False)


def _routed(method: str, paths: tuple[str, ...], tag: str, *, whole_body: bool) -> Callable[[Method], Method]:
    def mark(function: Method) -> Method:
        setattr(function, _ROUTE, _Route(method=method, paths=paths, tag=tag, whole_body=whole_body))
        return function

    return mark


def _operation(name: str, function: Callable[..., Any], route: _Route) -> Operation:
    hints = typing.get_type_hints(function, include_extras=True)
    in_path = set(_IN_BRACES.findall(route.paths[0]))
    elsewhere = Place.BODY if route.method == "POST" else Place.QUERY
    parameters = [
        Parameter(
            name=p.name,
            place=Place.PATH if p.name in in_path else elsewhere,
            type=hints[p.name],
            default=NODEFAULT if p.default is inspect.Parameter.empty else p.default,
        )
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]
    return Operation(
        name=name,
        method=route.method,
        paths=route.paths,
        tag=route.tag,
        summary=inspect.getdoc(function) or "",
        parameters=tuple(parameters),
        answer=hints["return"],
        whole_body=route.whole_body,
    )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(_IN_BRACES.sub(r"(?P<\1>[^/]+)", path))


def _from_query(parameter: Parameter, texts: list[tuple[str, str]]) -> Any:
    values = [text for name, text in texts if name == parameter.name]
    if not values:
        return _default(parameter)
    many = typing.get_origin(parameter.type) is list
    return _converted(parameter, values if many else values[-1], strict=False)


def _default(parameter: Parameter) -> Any:
    if parameter.required:
        raise BadArguments(f"{parameter.name}: missing")
    return parameter.default


def _converted(parameter: Parameter, value: Any, *, strict: bool) -> Any:
    try:
        return msgspec.convert(value, parameter.type, strict=strict)
    except msgspec.ValidationError as error:
        raise BadArguments(f"{parameter.name}: {str(error)[:200]}") from None


def _values(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
