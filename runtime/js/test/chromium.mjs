/**
 * Run the conformance folder in headless Chromium, with onnxruntime-web's WebAssembly on one thread.
 *
 *     node chromium.mjs FOLDER [--latency ARTIFACT]
 *
 * The last line of its output is JSON. Exits 1 where a case failed.
 */

import { basename, dirname, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { serve, start } from "./browser.mjs";

const { values, positionals } = parseArgs({ allowPositionals: true, options: { latency: { type: "string" } } });
const [folder] = positionals;
if (!folder) throw new Error("Usage: node chromium.mjs FOLDER [--latency ARTIFACT]");

const folders = { "/js/": fileURLToPath(new URL("..", import.meta.url)), "/conformance/": resolve(folder) };
if (values.latency) folders["/timed/"] = resolve(dirname(values.latency));
const server = await serve(folders);
const browser = await start();
try {
  const page = await browser.newPage();
  await page.goto(`${server.url}/js/test/blank.html`);
  const found = await page.evaluate(inPage, {
    chromium: browser.version(),
    timed: values.latency && `/timed/${basename(values.latency)}`,
  });
  console.log(JSON.stringify(found));
  process.exitCode = found.passed ? 0 : 1;
} finally {
  await browser.close();
  server.close();
}

/** Runs in the page. */
async function inPage({ chromium, timed }) {
  const { report } = await import("/js/test/report.js");
  const ort = await import("/js/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs");
  ort.env.wasm.numThreads = 1;
  const bytes = async (address) => new Uint8Array(await (await fetch(address)).arrayBuffer());
  const version = `onnxruntime-web ${ort.env.versions.web}, Chromium ${chromium}`;
  const read = (name) => bytes(`/conformance/${name}`);
  return report({ host: "chromium-wasm", version, ort, read, timed: timed && (await bytes(timed)) });
}
