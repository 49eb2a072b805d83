// The requests that FreqUI makes, from a real browser: of a page of the hub's own and of one on another origin.
//
// What is asked, and what FreqUI reads of each answer, was recorded from FreqUI on a freqtrade 2026.9 bot.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually, startWorld } from "./world.mjs";

const TOPICS = ["whitelist", "entry_fill", "exit_fill", "entry_cancel", "exit_cancel", "new_candle"];
const SHOW_CONFIG = [
  "version", "api_version", "dry_run", "trading_mode", "short_allowed", "stake_currency", "stake_amount", "stake_currency_decimals",
  "max_open_trades", "minimal_roi", "stoploss", "timeframe", "timeframe_ms", "exchange", "strategy", "force_entry_enable", "bot_name",
  "state", "runmode", "position_adjustment_enable",
];
const TRADE = [
  "trade_id", "pair", "base_currency", "quote_currency", "is_open", "amount", "stake_amount", "open_date", "open_timestamp", "open_rate",
  "profit_ratio", "profit_abs", "enter_tag", "exit_reason", "stop_loss_abs", "leverage", "has_open_orders", "orders",
];
const PROFIT = ["profit_closed_coin", "profit_all_coin", "trade_count", "closed_trade_count", "winrate", "max_drawdown", "bot_start_timestamp"];
const PERFORMANCE = ["profit_ratio", "profit_pct", "profit_abs", "count"];
const CANDLES = ["strategy", "pair", "timeframe", "columns", "all_columns", "data", "length", "last_analyzed", "data_start_ts", "data_stop_ts"];
const PLAIN_COLUMN = /^(date|open|high|low|close|volume|(enter|exit|buy|sell)_.*|_.*)$/;

function has(value, keys, what) {
  assert.deepEqual(keys.filter((key) => !(key in value)), [], `${what} lacks fields`);
}

describe("what FreqUI asks", () => {
  let world;
  let page;

  const ask = (method, path, options) =>
    page.evaluate(([method, path, options]) => session.ask(method, path, options), [method, path, options]);

  /** The body of an answer that must be 200. */
  async function got(method, path, body) {
    const answer = await ask(method, path, { body });
    assert.equal(answer.status, 200, `${method} ${path}: ${JSON.stringify(answer.body)}`);
    return answer.body;
  }

  /** The first message of a type that fits, once it came over the websocket. */
  const message = (type, fits = () => true) =>
    eventually(`a ${type}`, async () => {
      const messages = await page.evaluate((type) => session.messages.filter((m) => m.type === type), type);
      return messages.find(fits);
    }, 90_000);

  /** A trade that was entered by hand; makes room for it where the bot has enough trades of its own. */
  async function enter() {
    const { max_open_trades: most } = await got("GET", "/show_config");
    const { whitelist } = await got("GET", "/whitelist");
    return eventually("room for a trade by hand", async () => {
      const open = await got("GET", "/status");
      const pair = whitelist.find((pair) => open.every((trade) => trade.pair !== pair));
      if (pair && (most < 0 || open.length < most)) {
        return got("POST", "/forcebuy", { pair, ordertype: "market", entry_tag: "by hand" });
      }
      await ask("POST", "/forcesell", { body: { tradeid: String(open[0].trade_id), ordertype: "market" } });
      return false;
    });
  }

  before(async () => {
    world = await startWorld();
  });

  after(() => world?.stop());

  for (const [from, address] of [
    ["a page of its own origin", () => `${world.url}/fallback_file.html`],
    ["a page of another origin", () => world.other],
  ]) {
    describe(`from ${from}`, () => {
      before(async () => {
        page = await world.browser.newPage();
        await page.goto(address());
        if (!(await page.evaluate(() => "session" in globalThis))) {
          await page.addScriptTag({ path: new URL("session.js", import.meta.url).pathname });
        }
        await page.evaluate((url) => (session.base = url), world.url);
      });

      after(() => page.close());

      test("a login gives two tokens, a wrong one 401", async () => {
        const login = (password) => page.evaluate((user) => session.login(...user), [world.username, password]);
        assert.deepEqual(await login("wrong"), { status: 401, body: { detail: "Incorrect username or password" } });
        const { status, body } = await login(world.password);
        assert.equal(status, 200);
        await page.evaluate((tokens) => Object.assign(session, { access: tokens.access_token, refresh: tokens.refresh_token }), body);
      });

      test("seven refreshes at once all give a token", async () => {
        const answers = await page.evaluate(() =>
          Promise.all([...Array(7)].map(() =>
            session.ask("POST", "/token/refresh", { body: {}, authorization: `Bearer ${session.refresh}` }))));
        assert.deepEqual(answers.map((answer) => answer.status), Array(7).fill(200));
        await page.evaluate((token) => (session.access = token), answers[6].body.access_token);
      });

      test("an old token is a 401 that the page can read", async () => {
        const refresh = await page.evaluate(() => session.refresh);
        for (const token of [refresh, "not.a.token"]) {
          const answer = await ask("GET", "/status", { authorization: `Bearer ${token}` });
          assert.deepEqual(answer, { status: 401, body: { detail: "Could not validate credentials" } });
        }
        assert.equal((await ask("GET", "/no_such_route")).status, 404);
      });

      test("ping and show_config, on which the rest hangs", async () => {
        assert.deepEqual(await got("GET", "/ping"), { status: "pong" });
        const config = await got("GET", "/show_config");
        has(config, SHOW_CONFIG, "show_config");
        assert.ok(config.api_version >= 2.21, "FreqUI opens its websocket from 2.20 on, and takes new_candle from 2.21 on");
        assert.ok(["dry_run", "live"].includes(config.runmode), config.runmode);
        assert.equal(config.state, "running");
      });

      test("the websocket: the subscribe, the whitelist and a candle", async () => {
        assert.equal(await page.evaluate(() => session.open("not.a.token")), "refused");
        assert.equal(await page.evaluate(() => session.open()), "open");
        await page.evaluate((data) => session.send({ type: "subscribe", data }), TOPICS);
        await page.evaluate(() => session.send({ type: "whitelist", data: "" }));
        const { whitelist } = await got("GET", "/whitelist");
        assert.deepEqual((await message("whitelist")).data, whitelist);
        const { data } = await message("new_candle");
        assert.equal(data.length, 3);
        assert.ok(whitelist.includes(data[0]), data[0]);
      });

      test("the buttons: enter and exit by hand, with a fill on the websocket for each", async () => {
        for (const deleted of [false, true]) {
          const { trade_id: id } = await enter();
          const entry = await message("entry_fill", (fill) => fill.trade_id === id);
          has(entry, ["direction", "open_rate"], "entry_fill");
          const open = await eventually("the trade in status", async () =>
            (await got("GET", "/status")).find((trade) => trade.trade_id === id && !trade.has_open_orders));
          has(open, [...TRADE, "is_short", "current_rate", "total_profit_abs"], "an open trade");
          assert.deepEqual([open.pair, open.enter_tag], [entry.pair, "by hand"]);
          assert.equal((await got("POST", `/trades/${id}/reload`, {})).trade_id, id);
          const none = { status: 404, body: { detail: `No custom-data found for Trade ID: ${id}.` } };
          assert.deepEqual(await ask("GET", `/trades/${id}/custom-data`), none);
          const nothing = await ask("DELETE", `/trades/${id}/open-order`);
          assert.equal(nothing.status, 502);
          assert.match(nothing.body.error, /No open order for trade_id\./);

          const exited = await got("POST", "/forcesell", { tradeid: String(id), ordertype: "market" });
          assert.deepEqual(exited, { result: `Created exit order for trade ${id}.` });
          assert.equal((await message("exit_fill", (fill) => fill.trade_id === id)).pair, open.pair);
          const closed = await eventually("the trade among the closed", async () =>
            (await got("GET", "/trades?limit=500&offset=0")).trades.find((trade) => trade.trade_id === id && !trade.is_open));
          assert.equal(closed.exit_reason, "force_exit");
          if (deleted) {
            has(await got("DELETE", `/trades/${id}`), ["cancel_order_count", "result", "result_msg", "trade_id"], "delete trade");
            assert.equal((await ask("GET", `/trade/${id}`)).status, 404);
          }
        }
        const refused = await ask("POST", "/forcebuy", { body: { pair: "NO/SUCH" } });
        assert.equal(refused.status, 502);
        assert.match(refused.body.error, /^Error querying \/api\/v1\/forcebuy: /);
      });

      test("what is refreshed all the time", async () => {
        await got("GET", "/status");
        has(await got("GET", "/locks"), ["lock_count", "locks"], "locks");
        has((await got("GET", "/profit_all")).all, PROFIT, "profit_all.all");
        has(await got("GET", "/profit"), PROFIT, "profit");
        has(await got("GET", "/balance"), ["currencies", "total", "total_bot", "stake", "starting_capital", "note"], "balance");
        has(await got("GET", "/historic_balance"), ["columns", "length", "data"], "historic_balance");
        const { whitelist, length } = await got("GET", "/whitelist");
        assert.equal(whitelist.length, length);
        has(await got("GET", "/blacklist"), ["blacklist", "blacklist_expanded", "errors", "length", "method"], "blacklist");
        const { strategy } = await got("GET", "/show_config");
        has(await got("GET", `/strategy/${strategy}`), ["strategy", "timeframe", "code"], "strategy");
      });

      test("trades, page by page until all are there", async () => {
        const seen = new Set();
        for (let total = 1; seen.size < total; ) {
          const answer = await got("GET", `/trades?limit=1&offset=${seen.size}`);
          assert.equal(answer.trades.length, 1);
          assert.deepEqual([answer.trades_count, answer.offset], [1, seen.size]);
          has(answer.trades[0], TRADE, "a trade");
          seen.add(answer.trades[0].trade_id);
          total = answer.total_trades;
        }
      });

      test("the panes of the dashboard", async () => {
        for (const period of ["daily", "weekly", "monthly"]) {
          const { data } = await got("GET", `/${period}?timescale=30`);
          assert.equal(data.length, 30);
          has(data[0], ["date", "abs_profit", "rel_profit", "starting_balance", "fiat_value", "trade_count"], period);
        }
        for (const path of ["performance", "entries", "exits", "mix_tags"]) {
          const rows = await got("GET", `/${path}`);
          assert.ok(rows.length > 0, path);
          for (const row of rows) has(row, PERFORMANCE, path);
        }
        has(await got("GET", "/logs"), ["log_count", "logs"], "logs");
        has(await got("GET", "/sysinfo"), ["cpu_pct", "ram_pct"], "sysinfo");
        has(await got("GET", "/markets"), ["markets", "exchange_id"], "markets");
      });

      test("the candles of a chart, whole and with the columns that it plots", async () => {
        const { timeframe } = await got("GET", "/show_config");
        const [pair] = (await got("GET", "/whitelist")).whitelist;
        assert.equal(typeof (await got("GET", "/plot_config")), "object");
        const whole = await got("GET", `/pair_candles?pair=${encodeURIComponent(pair)}&timeframe=${timeframe}`);
        has(whole, CANDLES, "pair_candles");
        assert.deepEqual([whole.pair, whole.timeframe], [pair, timeframe]);
        const indicators = whole.all_columns.filter((name) => !PLAIN_COLUMN.test(name));
        assert.ok(indicators.length > 1, "two indicators, one of which is asked for");
        const part = await got("POST", "/pair_candles", { pair, timeframe, columns: indicators.slice(0, 1) });
        has(part, CANDLES, "pair_candles with columns");
        for (const name of ["date", "open", "high", "low", "close", "volume", indicators[0]]) assert.ok(part.columns.includes(name), name);
        assert.ok(!part.columns.includes(indicators[1]), "only what is asked for");
        assert.ok(part.length > 0);
        assert.equal(part.data.length, part.length);
        assert.equal(part.data[0].length, part.columns.length);
      });

      test("the buttons: blacklist and locks", async () => {
        const [first, second] = (await got("GET", "/whitelist")).whitelist;
        has(await got("POST", "/blacklist", { blacklist: [first, second] }), ["blacklist", "errors"], "blacklist");
        const listed = (await got("GET", "/blacklist")).blacklist;
        assert.ok(listed.includes(first) && listed.includes(second));
        const query = [first, second].map((pair) => `pairs_to_delete=${encodeURIComponent(pair)}`).join("&");
        const { blacklist } = await got("DELETE", `/blacklist?${query}`);
        assert.ok(!blacklist.includes(first) && !blacklist.includes(second));
        const until = new Date(Date.now() + 3_600_000).toISOString();
        const { locks } = await got("POST", "/locks", [{ pair: first, until, reason: "by hand" }]);
        const lock = locks.find((lock) => lock.reason === "by hand");
        has(lock, ["id", "active", "lock_end_time", "lock_end_timestamp", "pair", "side"], "a lock");
        await got("DELETE", `/locks/${lock.id}`);
        assert.ok((await got("GET", "/locks")).locks.every(({ id }) => id !== lock.id));
      });

      test("the buttons: pause, stop, start and reload", async () => {
        // A freqtrade bot takes no requests for some seconds while it reloads.
        const is = (state) =>
          eventually(`the bot to be ${state}`, () =>
            got("GET", "/show_config").then((config) => config.state === state, () => false));
        assert.match((await got("POST", "/stopbuy", {})).status, /^paused, no more entries will occur from now\./);
        await is("paused");
        assert.deepEqual(await got("POST", "/start", {}), { status: "starting trader ..." });
        await is("running");
        assert.deepEqual(await got("POST", "/start", {}), { status: "already running" });
        assert.deepEqual(await got("POST", "/stop", {}), { status: "stopping trader ..." });
        await is("stopped");
        assert.deepEqual(await got("POST", "/stop", {}), { status: "already stopped" });
        assert.deepEqual(await got("POST", "/start", {}), { status: "starting trader ..." });
        await is("running");
        assert.deepEqual(await got("POST", "/reload_config", {}), { status: "Reloading config ..." });
        await new Promise((resolve) => setTimeout(resolve, world.ours ? 0 : 5000));
        await is("running");
      });
    });
  }

  describe("outside of the API", () => {
    test("the version of the UI", async () => {
      const response = await fetch(`${world.url}/ui_version`);
      assert.equal(response.status, 200);
      assert.equal(typeof (await response.json()).version, "string");
    });

    test("a page of an origin that no configuration names gets no answers and no websocket", async (context) => {
      if (!world.ours) return context.skip("freqtrade opens a websocket to any Origin");
      const basic = `Basic ${Buffer.from(`${world.username}:${world.password}`).toString("base64")}`;
      const login = await fetch(`${world.url}/api/v1/token/login`, { method: "POST", headers: { Authorization: basic } });
      const { access_token: token } = await login.json();
      const stranger = await world.browser.newPage();
      await stranger.goto(world.other.replace("127.0.0.1", "localhost"));
      await stranger.evaluate(([url, token]) => Object.assign(session, { base: url, access: token }), [world.url, token]);
      await assert.rejects(stranger.evaluate(() => session.ask("GET", "/show_config")), /Failed to fetch/);
      assert.equal(await stranger.evaluate(() => session.open()), "refused");
      await stranger.close();
    });
  });
});
