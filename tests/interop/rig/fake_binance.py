"""Offline stand-in for Binance spot's public REST API: enough for ccxt 4.5 and freqtrade's dry run.

    fake_binance.py PORT              (binds 127.0.0.1 only)

Every price is a pure function of (symbol, time), so two bots - or a bot and a
test - that look at the same minute see the same candle.  No state, no RNG.
"""
import hashlib
import json
import math
import sys
import time

from aiohttp import web

SYMBOLS = {  # symbol: (base, quote, base price, price decimals, qty step decimals)
    "BTCUSDT": ("BTC", "USDT", 60000.0, 2, 5),
    "ETHUSDT": ("ETH", "USDT", 3000.0, 2, 4),
    "SOLUSDT": ("SOL", "USDT", 150.0, 3, 3),
    "XRPUSDT": ("XRP", "USDT", 0.60, 5, 1),
    "ADAUSDT": ("ADA", "USDT", 0.45, 5, 1),
    "LTCUSDT": ("LTC", "USDT", 80.0, 3, 3),
}
STEP = {"1m": 60, "3m": 180, "5m": 300, "15m": 900, "30m": 1800, "1h": 3600,
        "2h": 7200, "4h": 14400, "6h": 21600, "8h": 28800, "12h": 43200, "1d": 86400,
        "3d": 259200, "1w": 604800, "1M": 2592000}


def _noise(sym: str, n: int) -> float:
    h = hashlib.blake2b(f"{sym}:{n}".encode(), digest_size=4).digest()
    return int.from_bytes(h, "big") / 2**31 - 1.0          # -1 .. 1


def price(sym: str, t: float) -> float:
    base = SYMBOLS[sym][2]
    ph = (hash_ph(sym)) * 2 * math.pi
    k = int(t // 10)
    f = t / 10 - k
    nz = _noise(sym, k) * (1 - f) + _noise(sym, k + 1) * f
    return base * (1 + 0.015 * math.sin(2 * math.pi * t / 7200 + ph)
                   + 0.004 * math.sin(2 * math.pi * t / 300 + ph) + 0.0008 * nz)


def hash_ph(sym: str) -> float:
    return (_noise(sym, 0) + 1) / 2


def q(sym, v):
    return f"{v:.{SYMBOLS[sym][3]}f}"


def candle(sym: str, open_s: int, step: int, now: float):
    end = min(open_s + step, now)
    n = 7
    pts = [price(sym, open_s + (end - open_s) * i / (n - 1)) for i in range(n)]
    vol = (50000 / SYMBOLS[sym][2]) * (step / 60) * (1 + 0.5 * _noise(sym + "v", open_s)) * \
        max(0.02, (end - open_s) / step)
    return [open_s * 1000, q(sym, pts[0]), q(sym, max(pts)), q(sym, min(pts)), q(sym, pts[-1]),
            f"{vol:.6f}", (open_s + step) * 1000 - 1, f"{vol * pts[-1]:.6f}", 100,
            f"{vol / 2:.6f}", f"{vol / 2 * pts[-1]:.6f}", "0"]


def j(data, status=200):
    return web.Response(text=json.dumps(data), status=status, content_type="application/json")


def err(code, msg, status=400):
    return j({"code": code, "msg": msg}, status)


def wanted(req):
    if "symbol" in req.query:
        return [req.query["symbol"]], True
    if "symbols" in req.query:
        return json.loads(req.query["symbols"]), False
    return list(SYMBOLS), False


async def exchange_info(req):
    syms = []
    for s, (b, qt, _, pd, qd) in SYMBOLS.items():
        syms.append({
            "symbol": s, "status": "TRADING", "baseAsset": b, "baseAssetPrecision": 8,
            "quoteAsset": qt, "quotePrecision": 8, "quoteAssetPrecision": 8,
            "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS_LIMIT", "TAKE_PROFIT_LIMIT"],
            "icebergAllowed": True, "ocoAllowed": True, "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": [
                {"filterType": "PRICE_FILTER", "minPrice": f"{10**-pd:.8f}",
                 "maxPrice": "1000000.00000000", "tickSize": f"{10**-pd:.8f}"},
                {"filterType": "LOT_SIZE", "minQty": f"{10**-qd:.8f}",
                 "maxQty": "9000000.00000000", "stepSize": f"{10**-qd:.8f}"},
                {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000",
                 "maxQty": "900000.00000000", "stepSize": "0.00000000"},
                {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
                 "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
            ],
            "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
        })
    return j({"timezone": "UTC", "serverTime": int(time.time() * 1000), "rateLimits": [],
              "exchangeFilters": [], "symbols": syms})


async def server_time(req):
    return j({"serverTime": int(time.time() * 1000)})


def t24(s, now):
    p, o = price(s, now), price(s, now - 86400)
    tick = 10 ** -SYMBOLS[s][3]
    return {"symbol": s, "priceChange": q(s, p - o), "priceChangePercent": f"{(p / o - 1) * 100:.3f}",
            "weightedAvgPrice": q(s, (p + o) / 2), "prevClosePrice": q(s, o), "lastPrice": q(s, p),
            "lastQty": "1.0", "bidPrice": q(s, p - tick), "bidQty": "10.0", "askPrice": q(s, p + tick),
            "askQty": "10.0", "openPrice": q(s, o), "highPrice": q(s, max(p, o) * 1.02),
            "lowPrice": q(s, min(p, o) * 0.98), "volume": f"{1e8 / p:.4f}",
            "quoteVolume": "100000000.0", "openTime": int((now - 86400) * 1000),
            "closeTime": int(now * 1000), "firstId": 1, "lastId": 1000, "count": 1000}


async def ticker24(req):
    now = time.time()
    syms, single = wanted(req)
    if any(s not in SYMBOLS for s in syms):
        return err(-1121, "Invalid symbol.")
    out = [t24(s, now) for s in syms]
    return j(out[0] if single else out)


async def book_ticker(req):
    now = time.time()
    syms, single = wanted(req)
    out = [{k: t24(s, now)[k] for k in ("symbol", "bidPrice", "bidQty", "askPrice", "askQty")}
           for s in syms if s in SYMBOLS]
    return j(out[0] if single else out)


async def ticker_price(req):
    now = time.time()
    syms, single = wanted(req)
    out = [{"symbol": s, "price": q(s, price(s, now))} for s in syms if s in SYMBOLS]
    return j(out[0] if single else out)


async def depth(req):
    s = req.query.get("symbol", "")
    if s not in SYMBOLS:
        return err(-1121, "Invalid symbol.")
    n = min(int(req.query.get("limit", 100)), 1000)
    p, tick = price(s, time.time()), 10 ** -SYMBOLS[s][3]
    size = f"{20000 / SYMBOLS[s][2]:.5f}"
    return j({"lastUpdateId": int(time.time() * 1000),
              "bids": [[q(s, p - tick * (i + 1)), size] for i in range(n)],
              "asks": [[q(s, p + tick * (i + 1)), size] for i in range(n)]})


async def klines(req):
    s = req.query.get("symbol", "")
    if s not in SYMBOLS:
        return err(-1121, "Invalid symbol.")
    step = STEP.get(req.query.get("interval", ""))
    if not step:
        return err(-1120, "Invalid interval.")
    limit = min(int(req.query.get("limit", 500)), 1000)
    now = time.time()
    last = int(now // step * step)
    if "endTime" in req.query:
        last = min(last, int(int(req.query["endTime"]) / 1000 // step * step))
    if "startTime" in req.query:
        first = int(math.ceil(int(req.query["startTime"]) / 1000 / step) * step)
        times = list(range(first, last + 1, step))[:limit]
    else:
        times = [last - step * i for i in range(limit - 1, -1, -1)]
    return j([candle(s, t, step, now) for t in times])


async def trades(req):
    s = req.query.get("symbol", "")
    if s not in SYMBOLS:
        return err(-1121, "Invalid symbol.")
    now = int(time.time())
    return j([{"id": t, "a": t, "p": q(s, price(s, t)), "price": q(s, price(s, t)), "q": "0.1",
               "qty": "0.1", "quoteQty": "1", "time": t * 1000, "T": t * 1000, "f": t, "l": t,
               "m": bool(t % 2), "isBuyerMaker": bool(t % 2), "isBestMatch": True, "M": True}
              for t in range(now - 100, now)])


async def empty(req):
    return j({})


@web.middleware
async def log_unknown(req, handler):
    try:
        return await handler(req)
    except web.HTTPNotFound:
        print("UNHANDLED", req.method, req.path_qs, flush=True)
        return err(-1, "not emulated: " + req.path, 404)


def app():
    a = web.Application(middlewares=[log_unknown])
    v3 = "/api/v3"
    a.add_routes([
        web.get(v3 + "/ping", empty), web.get(v3 + "/time", server_time),
        web.get(v3 + "/exchangeInfo", exchange_info), web.get(v3 + "/ticker/24hr", ticker24),
        web.get(v3 + "/ticker/bookTicker", book_ticker), web.get(v3 + "/ticker/price", ticker_price),
        web.get(v3 + "/depth", depth), web.get(v3 + "/klines", klines),
        web.get(v3 + "/trades", trades), web.get(v3 + "/aggTrades", trades),
    ])
    return a


if __name__ == "__main__":
    web.run_app(app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
