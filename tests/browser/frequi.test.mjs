// FreqUI itself, served by the hub at `/`, drives the hub's default bot.
//
// FreqUI is GPL and no part of this project: TRADEWIRE_FREQUI_DIR names the folder of a build. What is looked for on its pages
// are words that its user sees.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { eventually, startWorld } from "./world.mjs";

const BUILD = process.env.TRADEWIRE_FREQUI_DIR;
const NAME = "the tested bot";
const FILL_MS = 30_000;

describe("FreqUI", { skip: !BUILD && "TRADEWIRE_FREQUI_DIR names no build of FreqUI" }, () => {
  let world;
  let page;
  let pair;
  let id;
  const failures = [];

  /** The body of an answer to somebody beside the browser. */
  async function beside(method, path, body) {
    const basic = Buffer.from(`${world.username}:${world.password}`).toString("base64");
    const headers = { Authorization: `Basic ${basic}`, "Content-Type": "application/json" };
    const response = await fetch(`${world.url}/api/v1${path}`, { method, headers, body: body && JSON.stringify(body) });
    return response.json();
  }

  const seen = (text, options = {}) => page.getByText(text, options).first().waitFor({ timeout: FILL_MS });
  const row = (text) => page.locator("tr").filter({ hasText: text });

  /** A pair without a position, and room for one. */
  async function freePair() {
    const { whitelist } = await beside("GET", "/whitelist");
    const { max_open_trades: most } = await beside("GET", "/show_config");
    return eventually("room for a trade", async () => {
      const open = await beside("GET", "/status");
      if (most < 0 || open.length < most) return whitelist.find((name) => open.every((trade) => trade.pair !== name));
      await beside("POST", "/forceexit", { tradeid: String(open[0].trade_id), ordertype: "market" });
      return false;
    });
  }

  /** Whether more than a background was drawn on a chart of the page. */
  const drawn = () =>
    page.evaluate(() =>
      [...document.querySelectorAll("canvas")].some((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size > 50;
      }));

  before(async () => {
    world = await startWorld({ uiDir: BUILD });
    page = await world.browser.newPage({ viewport: { width: 1600, height: 1200 } });
    // A build asks for pictures of its icons elsewhere; a test asks nobody else.
    await page.route((url) => url.origin !== world.url, (route) => route.abort());
    page.on("response", (response) => {
      if (response.status() >= 400) failures.push(`${response.status()} ${response.request().method()} ${response.url()}`);
    });
  });

  after(() => world?.stop());

  test("a wrong password is told, the right one logs in", async () => {
    await page.goto(`${world.url}/login`);
    await page.getByRole("textbox", { name: "Bot Name" }).fill(NAME);
    await page.getByRole("textbox", { name: "Username" }).fill(world.username);
    await page.getByRole("textbox", { name: "Password" }).fill("wrong");
    await page.getByRole("button", { name: "Submit" }).click();
    await seen("Login failed");
    assert.deepEqual(failures.splice(0), [`401 POST ${world.url}/api/v1/token/login`]);

    const websocket = page.waitForEvent("websocket");
    await page.getByRole("textbox", { name: "Password" }).fill(world.password);
    await page.getByRole("button", { name: "Submit" }).click();
    await page.waitForURL(`${world.url}/`);
    await seen(NAME, { exact: true });
    assert.match((await websocket).url(), /\/api\/v1\/message\/ws\?token=/);
  });

  test("a page of its router can be opened and reloaded", async () => {
    await page.goto(`${world.url}/dashboard`);
    for (const pane of ["Bot comparison", "Open Trades", "Closed Trades", "Profit over time", "Cumulative Profit"]) {
      await seen(pane, { exact: true });
    }
    const { total_bot: total } = await beside("GET", "/balance");
    assert.ok(total > 0);
    await row(NAME).filter({ hasText: /\(dry\)/ }).first().waitFor();
  });

  test("the chart is drawn", async () => {
    const candles = page.waitForResponse((response) => response.url().endsWith("/api/v1/pair_candles"));
    await page.goto(`${world.url}/graph`);
    assert.equal((await candles).status(), 200);
    await eventually("the chart", drawn, FILL_MS);
  });

  test("force enter, and the toast of its fill", async () => {
    pair = await freePair();
    const subscribed = page.waitForEvent("websocket").then((socket) => socket.waitForEvent("framereceived"));
    await page.goto(`${world.url}/trade`);
    await subscribed;
    await seen(pair, { exact: true });
    await page.getByTitle(/^Force enter/).click();
    const form = page.getByRole("dialog");
    await form.getByLabel("Pair").fill(pair);
    await form.getByText("Market", { exact: true }).click();
    await form.getByRole("button", { name: "Enter Position" }).click();
    await seen(`Order for ${pair} created.`);
    await seen(new RegExp(`Entry fill.*${pair}`, "i"));
    const trade = await eventually("the open trade", async () => (await beside("GET", "/status")).find((trade) => trade.pair === pair));
    id = trade.trade_id;
    await row(pair).first().waitFor({ timeout: FILL_MS });
  });

  test("force exit, and the toast of its fill", async () => {
    await row(pair).getByTitle("Actions").click();
    await page.getByText("Forceexit market", { exact: true }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Confirm" }).click();
    await seen(new RegExp(`Exit fill.*${pair}`, "i"));
    const closed = await eventually("the closed trade", async () =>
      (await beside("GET", "/trades")).trades.find((trade) => trade.trade_id === id && !trade.is_open));
    assert.equal(closed.exit_reason, "force_exit");
  });

  test("the trade is among the closed ones", async () => {
    await page.goto(`${world.url}/dashboard`);
    await row(pair).filter({ hasText: "force_exit" }).first().waitFor({ timeout: FILL_MS });
  });

  test("no request of all that failed", () => {
    assert.deepEqual(failures, []);
  });
});
