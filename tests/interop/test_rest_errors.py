"""Requests that are refused: the hub answers each as freqtrade's own server does, status, body and challenge.

What is compared comes before the bot is asked: credentials, routes, methods, JSON, run mode, parameters. Left out is what freqtrade
answers with 500, and what the hub refuses beyond it: NaN, half surrogate pairs, more than 1000 items, and to look at more than 16
KiB of who shows no credential.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from bots import PASSWORD, USERNAME, ApiServerProbe, HubProcess

TOKEN = "interop-errors-token-0123456789abcdef"
USER = (USERNAME, PASSWORD)
WITHOUT_BODY = """
GET /daily?timescale=0          GET /daily?timescale=x          GET /weekly?timescale=      GET /monthly?timescale=1.5
GET /trades?limit=0&offset=-1&order_by_id=maybe                 GET /trades?limit=1&limit=x
GET /trade/x                    GET /trades/x/custom-data       GET /trades/open/custom-data?limit=0
DELETE /trades/x                DELETE /trades/x/open-order     POST /trades/x/reload       DELETE /locks/x
GET /markets?trading_mode=x&margin_mode=y&include_inactive=2    GET /logs?limit=x
GET /pair_candles               GET /pair_candles?pair=A/B      GET /pair_candles?pair=A/B&timeframe=5m&limit=x
GET /nope                       GET /trades/1                   GET /status/                GET /strategy/a%2Fb
GET /hyperopt-loss              GET /trades/1/2/custom-data     GET /                       GET /docs
PUT /status                     PATCH /trades                   HEAD /version               OPTIONS /status
PUT /backtest                   POST /ping                      GET /token/login            GET /forceenter
GET /backtest                   POST /backtest                  DELETE /backtest            GET /strategies
GET /backtest/abort             GET /backtest/history           DELETE /backtest/history/x  PATCH /backtest/history/x
GET /backtest/history/result    GET /backtest/history/x/market_change                       GET /backtest/history/x/y/wallet
GET /background                 GET /background/1               DELETE /background/1        DELETE /background/clear
GET /pair_history               POST /pair_history              GET /pairlists/available    POST /pairlists/evaluate
GET /pairlists/evaluate/1       POST /download_data             GET /exchanges              GET /hyperoptloss
GET /freqaimodels               GET /available_pairs            GET /lookahead_analysis/1   POST /lookahead_analysis
GET /recursive_analysis/1       POST /recursive_analysis
"""
WITH_BODY = (
    "/forceenter",
    "/forcebuy",
    "/forceexit",
    "/forcesell",
    "/blacklist",
    "/locks",
    "/locks/delete",
    "/pair_candles",
)
BODIES = (
    b"null",
    b"{",
    b"[1,]",
    b"{} x",
    b'"x"',
    b"3",
    b"\xff\xfe",
    b"[" * 5000,
    b'{"pair":1,"side":"up","price":"x","tradeid":null,"blacklist":"x","lockid":"y","columns":3,"timeframe":5,"limit":1.5}',
    b'{"pair":null,"ordertype":"x","tradeid":[1],"blacklist":[1,"a",null],"columns":[2]}',
    b'[{"pair":1},{"pair":"A","until":"soon"},3,{"pair":"A","until":"2030-01-01T00:00:00","side":4,"reason":5}]',
)
REFUSED = (400, 401, 404, 405, 422, 503)
DECLARED = ("application/json", "application/vnd.x+json; charset=utf-8", "text/plain", None)


def requests() -> list[tuple[str, str, dict[str, Any]]]:
    words = WITHOUT_BODY.split()
    asked: list[tuple[str, str, dict[str, Any]]] = [
        (method, path, {"auth": auth})
        for method, path in zip(words[::2], words[1::2], strict=True)
        for auth in (USER, None)
    ]
    for path in WITH_BODY:
        asked.append(("POST", path, {"auth": USER}))
        for body in BODIES:
            json = {"Content-Type": "application/json"}
            asked += [
                ("POST", path, {"auth": auth, "content": body, "headers": json}) for auth in (USER, None)
            ]
    for kind in DECLARED:
        headers = {} if kind is None else {"Content-Type": kind}
        asked.append(("POST", "/forceexit", {"auth": USER, "content": b'{"tradeid":{}}', "headers": headers}))
        asked.append(("POST", "/backtest", {"auth": USER, "content": b"{", "headers": headers}))
    # Few, since the hub counts wrong credentials by address.
    asked.append(("GET", "/status", {"auth": (USERNAME, "wrong")}))
    for scheme in ("Bearer", "Bearer x.y.z", "Basic !!!", "Digest x"):
        asked.append(("GET", "/status", {"headers": {"Authorization": scheme}}))
    asked.append(("POST", "/token/login", {"headers": {"Authorization": "Bearer x"}}))
    asked.append(("POST", "/token/refresh", {"headers": {"Authorization": "Bearer x"}}))
    return asked


def answer(client: httpx.Client, method: str, path: str, keys: dict[str, Any]) -> tuple[Any, ...]:
    found = client.request(method, f"/api/v1{path}", **keys)
    kind, challenge = found.headers.get("content-type"), found.headers.get("www-authenticate")
    return found.status_code, kind, challenge, found.content


def test_what_is_refused_is_refused_as_freqtrade_does(directory: Path) -> None:
    different, compared = [], 0
    with (
        ApiServerProbe(directory / "server", token=TOKEN) as server,
        HubProcess(directory / "hub", api_server={"ws_token": TOKEN}, hub={}) as hub,
        httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as freqtrade,
        httpx.Client(base_url=f"http://127.0.0.1:{hub.port}") as ours,
    ):
        for method, path, keys in requests():
            expected = answer(freqtrade, method, path, keys)
            # Some bodies are good for some routes.
            if expected[0] in REFUSED:
                compared += 1
                got = answer(ours, method, path, keys)
                if got != expected:
                    different.append(
                        f"{method} {path} {str(keys)[:150]}\n  freqtrade {expected}\n  hub       {got}"
                    )
    assert compared > 300
    assert not different, "\n".join(different)
