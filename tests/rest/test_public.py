"""hub.rest.public: probes and documentation."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from typing import Any

import openapi_spec_validator
import pytest
from starlette.responses import JSONResponse

from hub.protocol.botapi import OPERATIONS
from hub.protocol.errors import ConfigError
from hub.rest.asyncapi import asyncapi_routes
from hub.rest.public import documentation_routes, openapi_document, probe_routes

from .service import Service

pytestmark = pytest.mark.anyio


class Probe:
    """A node that is as the test says."""

    def __init__(self, *, alive: bool = True, ready: bool = True) -> None:
        self._alive, self._ready = alive, ready

    def alive(self) -> bool:
        return self._alive

    def ready(self) -> tuple[bool, Mapping[str, Any]]:
        return self._ready, {"ledger": True, "not_draining": self._ready}


@pytest.mark.parametrize(
    ("alive", "status", "body"), [(True, 200, {"status": "alive"}), (False, 503, {"status": "dead"})]
)
async def test_livez(alive: bool, status: int, body: dict[str, str]) -> None:
    response = await Service(routes=probe_routes(Probe(alive=alive))).get("/livez")
    assert (response.status_code, response.json()) == (status, body)
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("ready", "status", "body"), [(True, 200, {"status": "ready"}), (False, 503, {"status": "not ready"})]
)
async def test_readyz(ready: bool, status: int, body: dict[str, str]) -> None:
    service = Service(routes=probe_routes(Probe(ready=ready)))
    response = await service.get("/readyz")
    assert (response.status_code, response.json()) == (status, body)
    verbose = await service.get("/readyz?verbose")
    assert verbose.json() == {**body, "checks": {"ledger": True, "not_draining": ready}}


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_probes_by_head(path: str) -> None:
    response = await Service(routes=probe_routes(Probe())).request("HEAD", path)
    assert (response.status_code, response.content) == (200, b"")


@pytest.fixture
def documented() -> Service:
    plain = Service()
    return Service(
        routes=documentation_routes(plain.rest, prefix="/api/v1", version="1.2.3", default_bot="main")
    )


async def test_without_enable_openapi_there_is_no_documentation() -> None:
    service = Service(routes=probe_routes(Probe()))
    for path in ("/docs", "/openapi.json", "/redoc", "/api/v1/docs", "/api/v1/openapi.json"):
        assert (await service.get(path)).status_code == 404


async def test_the_openapi_document_has_full_paths(documented: Service) -> None:
    document = (await documented.get("/openapi.json")).json()
    assert document["info"] == {"title": "tradewire", "version": "1.2.3"}
    hub = {"ping", "bots", "publish", "fills", "reconcile", "token/login", "token/refresh", "ws_ticket"}
    bots = {path.removeprefix("/") for operation in OPERATIONS.values() for path in operation.paths}
    assert set(document["paths"]) == {f"/api/v1/{path}" for path in hub | bots}
    assert set(document["paths"]["/api/v1/ping"]) == {"get", "head"}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi_document(Service().rest, prefix="/api/v1", version="1", default_bot="main")


def test_every_route_of_the_document_names_its_security(document: dict[str, Any]) -> None:
    schemes = set(document["components"]["securitySchemes"])
    for path, operations in document["paths"].items():
        for operation in operations.values():
            named = {name for scheme in operation.get("security", []) for name in scheme}
            assert named <= schemes
            assert bool(named) == (path != "/api/v1/ping")


def test_the_openapi_document_is_valid(document: dict[str, Any]) -> None:
    openapi_spec_validator.validate(document)
    ids = [op["operationId"] for ops in document["paths"].values() for op in ops.values()]
    assert len(ids) == len(set(ids))


def test_every_answer_of_a_bot_is_a_component(document: dict[str, Any]) -> None:
    for operation in OPERATIONS.values():
        for path in operation.paths:
            described = document["paths"][f"/api/v1{path}"][operation.method.lower()]["responses"]
            assert {"200", "401", "404", "502", "503"} <= set(described)
            assert ("422" in described) == bool(operation.parameters)
            (answer,) = described["200"]["content"].values()
            inline = {"plot_config"}
            assert ("#/components/schemas/" in str(answer)) == (operation.name not in inline)
            assert "properties" not in answer["schema"]
    stoploss = document["components"]["schemas"]["ShowConfig"]["properties"]["stoploss"]
    assert stoploss["anyOf"] == [{"type": "number"}, {"type": "null"}]


def test_each_bot_is_a_server_of_the_same_paths(document: dict[str, Any]) -> None:
    assert [server["url"] for server in document["servers"]] == ["/", "/bots/{bot}"]
    assert document["servers"][1]["variables"]["bot"]["default"] == "main"


async def test_the_documents_are_encoded_once(documented: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(routes=asyncapi_routes(version="1"))
    monkeypatch.delattr(JSONResponse, "render")
    for response in (await documented.get("/openapi.json"), await service.get("/asyncapi.json")):
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/json"
        assert response.json()["info"]["title"] == "tradewire"


async def test_the_documentation_works_without_internet(documented: Service) -> None:
    page = await documented.get("/docs")
    assert page.status_code == 200
    links = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert sorted(links) == ["/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css", "data:,"]
    assert "https://" not in page.text
    assert "url: '/openapi.json'" in page.text
    for link, kind in (
        ("/docs/swagger-ui-bundle.js", "text/javascript"),
        ("/docs/swagger-ui.css", "text/css"),
    ):
        asset = await documented.get(link)
        assert asset.status_code == 200
        assert asset.headers["content-type"].startswith(kind)
        assert len(asset.content) > 100_000


async def test_swagger_ui_reads_this_version_of_openapi(documented: Service) -> None:
    # OpenAPI 3.1 needs Swagger UI 5.
    assert (await documented.get("/openapi.json")).json()["openapi"].startswith("3.1")
    bundle = (await documented.get("/docs/swagger-ui-bundle.js")).text
    assert re.search(r'PACKAGE_VERSION:"5\.', bundle)


def test_without_its_package_the_documentation_is_a_config_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"^api_server\.enable_openapi: needs the package fastapi-offline"):
        documentation_routes(Service().rest, prefix="/api/v1", version="1", default_bot="main")
