/** What a user of the package meets, with the conformance folder's artifacts; the numbers are compared with Python's. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

import { parseCard } from "../artifact.js";
import { ArtifactError, InputError, load, loadInWorker } from "../murho.js";

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
    `{"schema": 5, "name": "a \\" 12345678901234567", "task": "", "inputs": [], "outputs": [], "states": [], ` +
    `"posterior_sha256": "", "draws": 256, "levels": [0.12345678901234567], "seed": ${seed}, "horizon": 1, ` +
    `"generator": "pcg4d-boxmuller-2"}`;
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

test("an artifact of the earlier generator warns, and answers as it always did", async (context) => {
  const warned = context.mock.method(console, "warn", () => {});
  const folder = fileURLToPath(new URL("../../../tests/schema4", import.meta.url));
  const expected = JSON.parse(await readFile(`${folder}/paths.json`));
  const model = await load(`${folder}/paths.onnx`);
  assert.equal(warned.mock.callCount(), 1);
  assert.match(warned.mock.calls[0].arguments[0], /generator pcg4d-boxmuller-1, .* noise and the first .* half their radii/);
  const { data, shape } = expected.inputs.x;
  const { draws, seed, noise } = expected;
  const found = await model.predict({ data, dims: shape }, { draws, seed: BigInt(seed), level: 0.8, noise: noise === 1 });
  const { data: mean, limit } = expected.expected.mean;
  mean.forEach((value, k) => assert.ok(Math.abs(value - found.mean.data[k]) < limit, `${value} ${found.mean.data[k]}`));
  await load(path("paths"));
  assert.equal(warned.mock.callCount(), 1);
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

test("an option that there is none, of every method", async () => {
  const model = await load(path("lstm"));
  const x = row("lstm");
  const refused = (promise, message) => assert.rejects(promise, { name: "InputError", message });
  await refused(model.predict(x, { levels: 0.9 }), /^predict has no option levels\. It knows: draws, level, seed, noise, /);
  await refused(model.predict(x, { Seed: 1, n: 2 }), /^predict has no option Seed, n\. /);
  await refused(load(path("lstm"), { backends: "onnxruntime-web" }), /^load has no option backends\. It knows: backend\.$/);
  await refused(loadInWorker(path("lstm"), { seed: 1 }), /^loadInWorker has no option seed\. /);
  for (const options of [null, 256, "fast", [256]]) {
    await refused(model.predict(x, options), /^The options of predict must be an object, such as \{draws: …\}, not /);
    await refused(load(path("lstm"), options), /^The options of load must be an object, such as \{backend: …\}, not /);
  }
  await refused(model.predict(x, { noise: 0 }), "noise must be True or False, not 0.");
  await refused(model.predict(x, { calibrated: "no" }), "calibrated must be True or False, not 'no'.");
  await refused(model.predict(x, { onProgress: true }), "onProgress must be a function (done, of).");
  await refused(model.predict(x, { signal: new AbortController() }), /^signal must be an AbortSignal/);
  await model.predict(x, { draws: undefined, onProgress: undefined, signal: undefined });
  assert.throws(() => model.observe([1], { rows: 1 }), { name: "InputError", message: /^observe takes no options/ });
  await refused(model.saveState("state.json"), /^saveState takes no options/);
  await refused(model.loadState("{}", {}), /^loadState takes no options/);
});

test("values that are none", async () => {
  const model = await load(path("lstm"));
  const refused = (x, message) => assert.rejects(model.predict(x), { name: "InputError", message });
  const holes = [1, , 3]; // eslint-disable-line no-sparse-arrays
  await refused([holes.map((value) => [value])], /^x must be an array|^x must hold numbers/);
  await refused([[[1], , [3]]], /^x must /); // eslint-disable-line no-sparse-arrays
  await refused({ data: holes, dims: [1, 3, 1] }, /^x must hold numbers that fit float32, not object/);
  for (const value of ["1", null, undefined, true, {}, NaN, Infinity, 1e39, 10n ** 60n, 2n ** 64n, Symbol.iterator, () => 1]) {
    await refused([[[1], [value]]], /^x must (hold numbers that fit float32|be finite)/);
    await refused({ data: [1, value], dims: [1, 2, 1] }, /^x must (hold numbers that fit float32|be finite)/);
  }
  const flat = /^An array \{data, dims\} has flat data/;
  for (const dims of [[-1, -3, 1], [1.5, 2, 1], [1, NaN, 1], [Infinity, 0, 1], ["a", 3, 1]]) {
    await refused({ data: [1, 2, 3], dims }, flat);
  }
  await refused({ data: [[1], [2], [3]], dims: [1, 3, 1] }, flat);
  await refused({ data: 3, dims: [] }, flat);
  await refused({ data: [1, 2, 3], dims: null }, /^An array of dims \(\) holds 1 values, but its data has 3/);
  await refused(new DataView(new ArrayBuffer(8)), /^x must hold numbers that fit float32, not object/);
  const endless = [];
  endless.push(endless);
  await refused(endless, /^x must be an array/);
  await refused({ toString: [[[1]]] }, /^x must have the inputs x, but has toString/);
  assert.ok(await model.predict([[[1n], [2n]]], { draws: 16 }));
});

test("more levels than fit", async () => {
  const model = await load(path("lstm"));
  const rows = Array.from({ length: 20_000 }, () => [[1]]);
  const level = new Float64Array(10_000).fill(0.5);
  await assert.rejects(model.predict(rows, { level, draws: 16 }), {
    name: "InputError",
    message: /^10000 levels of 20000 rows make 3\.0 GiB of intervals; at most 2 GiB are returned from one call\. Ask for fewer/,
  });
});

test("repeated draws", async () => {
  const model = await load(path("lstm"));
  for (const draws of [[3, 5, 3], Uint32Array.of(7, 7), BigInt64Array.of(1n, 2n, 2n)]) {
    await assert.rejects(model.predict(row("lstm"), { draws }), {
      name: "InputError",
      message: /^draws must differ, since a repeated draw adds nothing; \d comes more than once\.$/,
    });
  }
});

test("rows without returns, and answers beyond float32", async () => {
  const model = await load(path("paths"));
  const ask = (...lasts) => model.predict(lasts.map((last) => [[100], [101], [last]]), { draws: 64 });
  const none = (row, value) =>
    `Row ${row} of x has a last value of ${value}, of which there are no returns: this artifact reads windows relative to ` +
    "their last row. Fill or drop such rows first.";
  await assert.rejects(ask(99, 0), { name: "InputError", message: none(1, "0") });
  await assert.rejects(ask(-0, 99), { name: "InputError", message: none(0, "-0") });
  await assert.rejects(ask(99, 98, 1e-39), { name: "InputError", message: none(2, "1e-39") });
  await assert.rejects(ask(99, 1e-36), { name: "InputError", message: /^Row 1 of x is beyond float32 once it is scaled/ });
  const large = model.predict([[[100], [101], [99]], [[3e38], [1e38], [3.4e38]]], { draws: 64 });
  await assert.rejects(large, { name: "InputError", message: /^The network's answer output for row 1 is not finite, although/ });
  assert.throws(() => model.observe([1, 2]), { message: /^Nothing was predicted yet/ });
  assert.ok((await ask(99, -98)).lower.data.every(Number.isFinite));
});

test("files that are none", async () => {
  await assert.rejects(load("/no/such/file.onnx"), { name: "ArtifactError", message: /^Cannot read the artifact \/no/ });
  await assert.rejects(load(Uint8Array.of(80, 75, 3, 4, 0)), { name: "ArtifactError", message: /TorchScript/ });
  const newer = Buffer.from((await readFile(path("lstm"))).toString("latin1").replace('"schema": 5', '"schema": 9'), "latin1");
  newer.write(createHash("sha256").update(newer.subarray(0, -82)).digest("hex"), newer.length - 64); // the last field
  await assert.rejects(load(new Uint8Array(newer)), {
    message: "The artifact has card schema 9; this murho reads 4 and 5. Upgrade murho.",
  });
});

test("nothing to observe yet, and what cannot be observed", async () => {
  const model = await load(path("lstm"));
  assert.throws(() => model.observe([1]), InputError);
  await model.predict(row("lstm"), { draws: 20, noise: false });
  assert.throws(() => model.observe([1]), { message: /^Nothing was predicted yet/ });
});
