/**
 * Call a model as another program says, so that it can compare the answers.
 *
 *     node answers.mjs < requests.json
 *
 * Reads {"artifact": path, "backend": name, "calls": [[method, …values], …]}, and prints a list: for each call {"result"}
 * or {"error": {name, message}}. A value {"number": "NaN"} stands for NaN, {"bigint": "1"} for 1n, and {"float64": […]}
 * for a Float64Array; numbers that are not finite are strings in the answers.
 */

import { text } from "node:stream/consumers";

import { load } from "../murho.js";

const { artifact, backend, calls } = JSON.parse(await text(process.stdin), revived);
const model = await load(artifact, { backend });
const answers = [];
for (const [method, ...values] of calls) {
  try {
    answers.push({ result: (await model[method](...values)) ?? null });
  } catch (error) {
    answers.push({ error: { name: error.name, message: error.message } });
  }
}
console.log(JSON.stringify(answers, plain));

function revived(_, value) {
  if (value?.number) return Number(value.number);
  if (value?.bigint) return BigInt(value.bigint);
  return value?.float64 ? Float64Array.from(value.float64) : value;
}

function plain(_, value) {
  if (typeof value === "bigint" || (typeof value === "number" && !Number.isFinite(value))) return String(value);
  return ArrayBuffer.isView(value) ? Array.from(value) : value;
}
