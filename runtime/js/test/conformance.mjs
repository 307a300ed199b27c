/**
 * Run the conformance folder in Node.js.
 *
 *     node conformance.mjs native|wasm FOLDER [--latency ARTIFACT]
 *
 * The last line of its output is JSON. Exits 1 where a case failed.
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { runtimeOf } from "../engine.js";
import { report } from "./report.js";

const PACKAGES = { native: "onnxruntime-node", wasm: "onnxruntime-web" };

const { values, positionals } = parseArgs({ allowPositionals: true, options: { latency: { type: "string" } } });
const [kind, folder] = positionals;
if (!PACKAGES[kind] || !folder) throw new Error("Usage: node conformance.mjs native|wasm FOLDER [--latency ARTIFACT]");

const ort = await runtimeOf(PACKAGES[kind]);
if (kind === "wasm") ort.env.wasm.numThreads = 1;
const bytes = async (path) => new Uint8Array(await readFile(path));
const found = await report({
  host: `node-${kind}`,
  version: `${PACKAGES[kind]} ${ort.env.versions[kind === "wasm" ? "web" : "node"]}`,
  ort,
  read: (name) => bytes(join(folder, name)),
  timed: values.latency && (await bytes(values.latency)),
});
console.log(JSON.stringify(found));
process.exit(found.passed ? 0 : 1);
