// What a browser test needs: a hub with its bots, Chromium, and a page of ours on another origin.
//
// The hub is `make run`'s, with the bot that trades as its default bot. TRADEWIRE_BROWSER_URL (with _USERNAME, _PASSWORD and the
// _ORIGIN_PORT that its CORS_origins allow) names another server instead, so that the tests can be tried on a real freqtrade bot.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const START_MS = 60_000;
const CHROMIUM = process.env.TRADEWIRE_CHROMIUM ?? "/usr/bin/chromium";
const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

/** Everything of a test file; `stop` ends what was started. `uiDir` is served by the hub at `/`. */
export async function startWorld({ uiDir } = {}) {
  const other = await servePage();
  const server = process.env.TRADEWIRE_BROWSER_URL ? namedServer() : await startHub({ uiDir, origins: [other.origin] });
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS, headless: true });
  return {
    ...server,
    other: other.origin,
    browser,
    async stop() {
      await browser.close();
      await server.stop();
      await other.stop();
    },
  };
}

/** A server that runs already. */
function namedServer() {
  const { TRADEWIRE_BROWSER_URL: url, TRADEWIRE_BROWSER_USERNAME: username, TRADEWIRE_BROWSER_PASSWORD: password } = process.env;
  return { url, username, password, ours: false, async stop() {} };
}

/** `make run` on a free port, at two candles a second, with a user that we know. */
async function startHub({ uiDir, origins }) {
  const username = "browser";
  const password = randomBytes(18).toString("hex");
  const env = {
    ...process.env,
    TRADEWIRE__API_SERVER__USERNAME: username,
    TRADEWIRE__API_SERVER__PASSWORD: password,
    TRADEWIRE__API_SERVER__CORS_ORIGINS: JSON.stringify(origins),
    TRADEWIRE__HUB__DEFAULT_BOT: "paper",
    // The bot trades by hand only, so that no test meets a trade that it did not expect.
    TRADEWIRE__EXTERNAL_MESSAGE_CONSUMER__REMOVE_ENTRY_EXIT_SIGNALS: "true",
    TRADEWIRE__MINIMAL_ROI: "{}",
    TRADEWIRE__STOPLOSS: "-0.99",
    TRADEWIRE__FORCE_ENTRY_ENABLE: "true",
    ...(uiDir && { TRADEWIRE__HUB__UI_DIR: uiDir }),
  };
  const command = [`${ROOT}.venv/bin/python`, "-m", "examples.run", "--port", "0", "--speed", "2", "--seconds", "2000"];
  const child = spawn(command[0], command.slice(1), { cwd: ROOT, env, stdio: ["ignore", "ignore", "pipe"] });
  const said = [];
  const url = await announcedUrl(child, said);
  await answers(url, username, password);
  return {
    url,
    username,
    password,
    ours: true,
    async stop() {
      if (child.exitCode !== null) throw new Error(`make run ended before the tests\n${said.join("\n")}`);
      child.kill("SIGTERM");
      await once(child, "exit");
    },
  };
}

/** The URL among what `make run` says on stderr, the newest of which is kept in `said`. */
function announcedUrl(child, said) {
  return new Promise((resolve, reject) => {
    const fail = (why) => reject(new Error(`make run ${why}\n${said.join("\n")}`));
    const late = setTimeout(() => fail("did not start in time"), START_MS);
    child.once("exit", (code) => fail(`ended with ${code}`));
    createInterface({ input: child.stderr }).on("line", (line) => {
      if (said.push(line) > 50) said.shift();
      const url = /^hub\s+(http:\/\/\S+)/.exec(line)?.[1];
      if (url) {
        clearTimeout(late);
        resolve(url);
      }
    });
  });
}

/** Returns once the default bot takes orders: it attaches to the hub some time after the hub listens. */
async function answers(url, username, password) {
  const headers = { Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString("base64")}` };
  const asked = async (path) => {
    const response = await fetch(`${url}/api/v1${path}`, { headers });
    return response.ok && response.json();
  };
  await eventually("the bot to answer", async () => {
    const { whitelist } = (await asked("/whitelist")) || {};
    return whitelist?.length > 0 && (await asked("/show_config")).state === "running";
  }, START_MS);
}

/** page.html and its script, on an origin that is not the hub's. */
async function servePage() {
  const files = { "/": ["page.html", "text/html"], "/session.js": ["session.js", "text/javascript"] };
  const server = createServer(async (request, response) => {
    const [name, type] = files[request.url] ?? [];
    if (!name) return response.writeHead(404).end();
    response.writeHead(200, { "Content-Type": `${type}; charset=utf-8` });
    response.end(await readFile(new URL(name, import.meta.url)));
  });
  server.listen(Number(process.env.TRADEWIRE_BROWSER_ORIGIN_PORT ?? 0), "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** The first answer of `ask` that is not undefined, asked four times a second. */
export async function eventually(what, ask, ms = 60_000) {
  for (const end = Date.now() + ms; ; await new Promise((resolve) => setTimeout(resolve, 250))) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > end) throw new Error(`waited ${ms / 1000} s for ${what}`);
  }
}
