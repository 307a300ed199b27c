/** murho in a browser's page and in its Web Workers: Debian's Chromium, headless. */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { load } from "../murho.js";
import { CHROMIUM, serve, start } from "./browser.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const ARTIFACT = here("../../../tests/conformance/lstm.onnx");
const BUNDLE = "/runtime/js/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
const X = { data: Array.from({ length: 21 }, (_, k) => 100 + k), dims: [1, 21, 1] };
const ASKED = { draws: 100, level: [0.5, 0.9], seed: 7 };
const how = { skip: existsSync(CHROMIUM) ? false : `needs Chromium at ${CHROMIUM}`, timeout: 120_000 };

let server, browser, page, expected;
const errors = [];

before(async () => {
  if (how.skip) return;
  server = await serve({ "/runtime/": here("../.."), "/examples/": here("../../../examples"), "/artifacts/": here("../../../tests/conformance") });
  browser = await start();
  page = await browser.newPage();
  page.on("pageerror", (error) => errors.push(error));
  const model = await load(ARTIFACT, { backend: "onnxruntime-web" });
  expected = plain(await model.predict(X, ASKED));
});

after(async () => {
  await browser?.close();
  server?.close();
  assert.deepEqual(errors, []);
});

/** An answer as JSON can carry it. */
function plain(answer) {
  const array = (value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
  const part = (value) => (value?.dims ? { data: array(value.data), dims: value.dims } : array(value));
  return Object.fromEntries(Object.entries({ ...answer, seed: String(answer.seed) }).map(([k, v]) => [k, part(v)]));
}

/** Run a function in the page, with `murho`, `plain` and what is given. */
async function inPage(work, given = {}) {
  await page.goto(`${server.url}/runtime/js/test/blank.html`);
  const setup = `${plain}; return (${work})({ murho: await import("/runtime/js/murho.js"), plain, ...given });`;
  return page.evaluate(
    ([body, values]) => new (Object.getPrototypeOf(async () => {}).constructor)("given", body)(values),
    [setup, { backend: BUNDLE, x: X, asked: ASKED, artifact: "/artifacts/lstm.onnx", ...given }],
  );
}

test("the page gets Node's answer, with an address, a module or an import map", how, async () => {
  const answers = await inPage(async ({ murho, plain, backend, x, asked, artifact }) => {
    const map = Object.assign(document.createElement("script"), { type: "importmap" });
    map.textContent = JSON.stringify({ imports: { "onnxruntime-web/wasm": backend } });
    document.head.append(map);
    const backends = [backend, await import(backend), undefined];
    const ask = async (backend) => (await murho.load(artifact, { backend })).predict(x, asked);
    return Promise.all(backends.map(async (backend) => plain(await ask(backend))));
  });
  for (const answer of answers) assert.deepEqual(answer, expected);
});

test("a worker gives the same answer, again and again, and learns the same", how, async () => {
  const { answers, card, states } = await inPage(async ({ murho, plain, backend, x, asked, artifact }) => {
    const models = [await murho.loadInWorker(artifact, { backend }), await murho.load(artifact, { backend })];
    const worker = models[0];
    const answers = (await Promise.all([1, 2, 3].map(() => worker.predict(x, asked)))).map(plain);
    const states = [];
    for (const model of models) {
      await model.predict(x, asked);
      await model.observe([90]);
      const text = await model.saveState();
      await model.loadState(text);
      states.push([text, await model.saveState(), plain(await model.predict(x, asked))]);
      await model.release();
    }
    return { answers, card: { ...worker.card, seed: String(worker.card.seed) }, states };
  });
  for (const answer of answers) assert.deepEqual(answer, expected);
  assert.equal(card.draws, 256);
  assert.deepEqual(states[0], states[1]);
  assert.equal(states[0][0], states[0][1]);
  assert.notDeepEqual(states[0][2].lower, expected.lower);
});

test("a worker reports its progress, can be stopped, and leaves the page free", how, async () => {
  const { seen, name, turns, next } = await inPage(async ({ murho, plain, backend, x, asked, artifact }) => {
    const model = await murho.loadInWorker(new URL(artifact, location), { backend: new URL(backend, location) });
    const seen = [];
    const controller = new AbortController();
    const onProgress = (done) => seen.push(done) === 3 && controller.abort();
    let turns = 0;
    const timer = setInterval(() => turns++);
    const options = { draws: 20000, chunk: 16, onProgress, signal: controller.signal };
    const name = await model.predict(x, options).catch((error) => error.name);
    clearInterval(timer);
    return { seen, name, turns, next: plain(await model.predict(x, asked)) };
  });
  assert.deepEqual(seen.slice(0, 3), [16, 32, 48]);
  assert.ok(seen.length < 20000 / 16);
  assert.equal(name, "AbortError");
  assert.ok(turns > 0);
  assert.deepEqual(next, expected);
});

test("a worker's errors are the page's", how, async () => {
  const found = await inPage(async ({ murho, backend, x, artifact }) => {
    const model = await murho.loadInWorker(new Blob([await (await fetch(artifact)).arrayBuffer()]), { backend });
    const caught = (promise) => promise.then(() => null, (error) => [error.name, error.message, error instanceof murho.MurhoError]);
    const found = [
      await caught(model.predict(x, { draws: 1 })),
      await caught(model.predict({ data: [NaN], dims: [1, 1, 1] })),
      await caught(model.observe([1])),
      await caught(murho.loadInWorker(new Uint8Array([1, 2, 3]), { backend })),
      await caught(murho.loadInWorker("/artifacts/none.onnx", { backend })),
      await caught(murho.loadInWorker(artifact, { backend: "/no/runtime.mjs" })),
    ];
    await model.release();
    return [...found, await caught(model.predict(x))];
  });
  const messages = [
    ["InputError", /^draws must be at least 2/],
    ["InputError", /^x must be finite, but x\[0, 0, 0\] is nan/],
    ["InputError", /^Nothing was predicted yet/],
    ["ArtifactError", /^The artifact is not a murho artifact/],
    ["ArtifactError", /^Cannot read the artifact .*\/artifacts\/none\.onnx: 404/],
    ["MurhoError", /^Cannot load ONNX Runtime from .*\/no\/runtime\.mjs/],
    ["MurhoError", /^The model was released/],
  ];
  found.forEach(([name, message, ours], k) => {
    assert.equal(name, messages[k][0], message);
    assert.match(message, messages[k][1]);
    assert.ok(ours, message);
  });
});

test("the example page", how, async () => {
  await page.goto(`${server.url}/examples/web/index.html`);
  await page.setInputFiles("#file", here("browser.mjs"));
  await page.waitForFunction(() => /not a murho artifact/.test(document.getElementById("answer").textContent));
  await page.setInputFiles("#file", ARTIFACT);
  await page.waitForSelector("button:enabled");
  await page.fill("#values", X.data.join(" "));
  await page.click("button");
  await page.waitForFunction(() => document.getElementById("answer").textContent.startsWith("Step 1"));
  const model = await load(ARTIFACT, { backend: "onnxruntime-web" });
  const { mean, lower, upper } = await model.predict(X, { draws: 256, level: 0.9, seed: 0 });
  const [m, l, u] = [mean, lower, upper].map(({ data }) => data[0].toFixed(2));
  assert.equal(await page.textContent("#answer"), `Step 1: ${m}, from ${l} to ${u}.`);
  if (process.env.SCREENSHOT) await page.screenshot({ path: process.env.SCREENSHOT });
});
