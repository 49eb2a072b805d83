"""Requests made from the OpenAPI document, valid and broken, against the mount with a bot that keeps its state.

No answer is a 5xx but the documented 502 and 503, and each is as documented: status, media type and schema. Run by `make
test-openapi`, which installs schemathesis.
"""

from __future__ import annotations

from typing import Any

import schemathesis
from auth.credentials import basic
from hypothesis import HealthCheck, Phase, settings
from rest.ledger_bot import LedgerBot
from rest.service import Service
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hub.bots.ports import InProcess
from hub.rest.public import documentation_routes

CHECKS = [content_type_conformance, response_schema_conformance, status_code_conformance]


def documented() -> Service:
    plain = Service()
    routes = documentation_routes(plain.rest, prefix="/api/v1", version="1", default_bot="main")
    service = Service(routes=routes)
    service.in_process["main"] = InProcess("main", LedgerBot())
    return service


SERVICE = documented()
SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", SERVICE.app)


@SCHEMA.parametrize()
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
    derandomize=True,
)
def test_every_answer_is_as_documented(case: Any) -> None:
    response = case.call(headers={"Authorization": basic()})
    if response.status_code not in (502, 503):
        case.validate_response(response, checks=[not_a_server_error])
    case.validate_response(response, checks=CHECKS)
