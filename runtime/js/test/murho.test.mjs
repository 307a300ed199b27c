/** What a user of the package meets, with the conformance folder's artifacts; the numbers are compared with Python's. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { parseCard } from "../artifact.js";
import { ArtifactError, InputError, load } from "../murho.js";

const FOLDER = process.env.MURHO_CONFORMANCE ?? fileURLToPath(new URL("../../../tests/conformance", import.meta.url));
const BACKENDS = ["onnxruntime-node", "onnxruntime-web"];
const { cases } = JSON.parse(await readFile(`${FOLDER}/conformance.json`));

const path = (name) => `${FOLDER}/${name}.onnx`;
const row = (name) => {
  const { data, shape } = cases.find(({ artifact }) => artifact === name).inputs.x;
  return { data: Float32Array.from(data), dims: shape };
};
const bytes = async (name) => new Uint8Array(await readFile(path(name)));

for (const backend of BACKENDS) {
  for (const name of ["lstm", "convolution", "paths"]) {
    test(`${backend}, ${name}: no split of the draws changes the answer`, async () => {
      const model = await load(path(name), { backend });
      const ask = (chunk) => model.predict(row(name), { draws: 150, level: [0.5, 0.9], seed: 7, chunk });
      const whole = await ask(160);
      for (const chunk of [16, 48, undefined, undefined]) assert.deepEqual(await ask(chunk), whole);
      await model.release();
    });
  }
}

test("x as nested arrays or flat, of any type of numbers", async () => {
  const model = await load(path("lstm"));
  const { dims } = row("lstm");
  const flat = Array.from({ length: row("lstm").data.length }, (_, k) => 100 + k);
  const nested = Array.from({ length: dims[0] }, (_, b) =>
    Array.from({ length: dims[1] }, (_, t) => [flat[b * dims[1] + t]]),
  );
  const ways = [nested, nested.map((one) => one.map((step) => Float64Array.from(step))), { x: nested }];
  for (const type of [Float32Array, Float64Array, Int32Array, Uint8Array]) ways.push({ data: type.from(flat), dims });
  ways.push({ data: BigInt64Array.from(flat, BigInt), dims }, { data: flat, dims });
  const answers = await Promise.all(ways.map((x) => model.predict(x, { draws: 20 })));
  for (const answer of answers) assert.deepEqual(answer, answers[0]);
  await assert.rejects(model.predict({ data: flat, dims: [2, ...dims] }), {
    name: "InputError",
    message: `An array of dims (2, ${dims.join(", ")}) holds ${2 * flat.length} values, but its data has ${flat.length}.`,
  });
});

test("seeds as numbers and as BigInts", async () => {
  const model = await load(path("lstm"));
  const ask = (seed) => model.predict(row("lstm"), { draws: 20, seed });
  assert.deepEqual(await ask(5), await ask(5n));
  assert.notDeepEqual(await ask(2n ** 62n), await ask(2n ** 62n + 1n));
  await assert.rejects(ask(2 ** 62), { name: "InputError", message: /pass a BigInt, such as 4611686018427387904n/ });
});

test("a card keeps a seed that no double holds", async () => {
  const text = (seed) =>
    `{"schema": 4, "name": "a \\" 12345678901234567", "task": "", "inputs": [], "outputs": [], "states": [], ` +
    `"posterior_sha256": "", "draws": 256, "levels": [0.12345678901234567], "seed": ${seed}, "horizon": 1, ` +
    `"generator": "pcg4d-boxmuller-1"}`;
  for (const seed of ["9223372036854775807", "-9223372036854775808", "42"]) {
    const card = parseCard(text(seed));
    assert.equal(card.seed, BigInt(seed));
    assert.equal(card.name, 'a " 12345678901234567');
    assert.deepEqual(card.levels, [0.12345678901234567]);
  }
});

test("progress, and a signal that stops between chunks", async () => {
  const model = await load(path("lstm"));
  const seen = [];
  const controller = new AbortController();
  const onProgress = (done, of) => {
    seen.push([done, of]);
    if (done === 48) controller.abort();
  };
  await model.predict(row("lstm"), { draws: 60, chunk: 32, onProgress });
  assert.deepEqual(seen, [[32, 60], [60, 60]]);
  seen.length = 0;
  const options = { draws: 160, chunk: 16, onProgress, signal: controller.signal };
  await assert.rejects(model.predict(row("lstm"), options), { name: "AbortError" });
  assert.equal(seen.length, 3);
  await assert.rejects(model.predict(row("lstm"), options), { name: "AbortError" });
  assert.equal(seen.length, 3);
});

test("other work gets its turn between chunks", async () => {
  const model = await load(path("lstm"));
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  after(() => clearInterval(timer));
  await model.predict(row("lstm"), { draws: 3200, chunk: 16 });
  assert.ok(turns > 10, `${turns} turns in 200 chunks`);
});

test("a wrong size of chunks", async () => {
  const model = await load(path("lstm"));
  for (const chunk of [0, -16, 20, 1.5, "16"]) {
    await assert.rejects(model.predict(row("lstm"), { chunk }), { name: "InputError", message: /multiple of 16/ });
  }
});

test("an artifact as bytes, Blob and URL", async () => {
  const content = await bytes("lstm");
  const sources = [content, content.slice().buffer, new Blob([content]), pathToFileURL(path("lstm"))];
  for (const source of sources) assert.equal((await load(source)).card.name, (await load(path("lstm"))).card.name);
});

test("every changed byte is noticed", async () => {
  const content = await bytes("generator");
  await assert.rejects(load(content), { name: "ArtifactError", message: /carries no card/ });
  const artifact = await bytes("lstm");
  for (let at = 0; at < artifact.length; at += 97) {
    const changed = artifact.slice();
    changed[at] ^= 1;
    await assert.rejects(load(changed), ArtifactError, `byte ${at}`);
    await assert.rejects(load(artifact.subarray(0, at)), ArtifactError, `cut at ${at}`);
  }
});

test("files that are none", async () => {
  await assert.rejects(load("/no/such/file.onnx"), { name: "ArtifactError", message: /^Cannot read the artifact \/no/ });
  await assert.rejects(load(Uint8Array.of(80, 75, 3, 4, 0)), { name: "ArtifactError", message: /TorchScript/ });
  const newer = (await readFile(path("lstm"))).toString("latin1").replace('"schema": 4', '"schema": 9');
  await assert.rejects(load(new Uint8Array(Buffer.from(newer, "latin1"))), {
    message: "The artifact has card schema 9; this murho reads 4. Upgrade murho.",
  });
});

test("nothing to observe yet, and what cannot be observed", async () => {
  const model = await load(path("lstm"));
  assert.throws(() => model.observe([1]), InputError);
  await model.predict(row("lstm"), { draws: 20, noise: false });
  assert.throws(() => model.observe([1]), { message: /^Nothing was predicted yet/ });
});
