// /asyncapi.json by the schema that the AsyncAPI initiative publishes for version 3.0.0.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import Ajv from "ajv";
import { startWorld } from "./world.mjs";

const SPECIFICATION = new URL("node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json", import.meta.url);

describe("AsyncAPI", { skip: process.env.TRADEWIRE_BROWSER_URL && "freqtrade has no such document" }, () => {
  let world;

  before(async () => {
    world = await startWorld();
  });

  after(() => world?.stop());

  test("the document of the hub is valid, and one without an address is not", async () => {
    const ajv = new Ajv({ strict: false, validateFormats: false });
    const valid = ajv.compile(JSON.parse(await readFile(SPECIFICATION, "utf8")));
    const document = await (await fetch(`${world.url}/asyncapi.json`)).json();
    assert.ok(valid(document), JSON.stringify(valid.errors?.slice(0, 5)));
    document.channels.freqtrade.address = 7;
    assert.ok(!valid(document));
  });
});
