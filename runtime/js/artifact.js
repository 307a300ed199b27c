/**
 * Read an ONNX artifact's card and check that nothing changed since it was written.
 *
 * The card is one of the file's metadata entries, and the digest covers every field of the file but its own entry.
 */

import { ArtifactError } from "./errors.js";
import { fields } from "./protobuf.js";

const METADATA = 14; // ModelProto.metadata_props in onnx.proto, of StringStringEntryProto (key = 1, value = 2)
const EXTERNAL_DATA = 13; // TensorProto.external_data, and data_location after it
/** Messages of onnx.proto on the way to tensors: of each the numbers of the fields that hold others. */
const WITHIN = {
  model: { 7: "graph", 25: "function" },
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  function: { 7: "node", 11: "attribute" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
  tensor: {},
};
const GENERATOR = "pcg4d-boxmuller-2";
const GENERATORS = new Map([[4, "pcg4d-boxmuller-1"], [5, GENERATOR]]); // by the card schemas that can be read
const NODE_FILES = "node:fs/promises"; // by a variable: bundlers for browsers look for what is written in an import
const NEEDED = ["name", "task", "inputs", "outputs", "states", "posterior_sha256", "draws", "levels", "seed", "horizon"];

/**
 * Card and bytes of an artifact. Throws ArtifactError if it is empty, cut short, changed, or not murho's.
 * @param {Uint8Array} bytes
 * @param {string} name for messages
 */
export async function read(bytes, name) {
  if (!bytes.length) throw new ArtifactError(`${name} is empty. Export it again.`);
  if (bytes[0] === 80 && bytes[1] === 75) {
    throw new ArtifactError(`${name} is a TorchScript artifact, which needs torch. Export it with to_onnx.`);
  }
  const { entries, covered } = scan(bytes, name);
  if (!entries.has("murho") || !entries.has("murho.sha256")) {
    throw new ArtifactError(
      `${name} is not a murho artifact: it carries no card. Expected a file written by murho.export.`,
    );
  }
  if ((await sha256(covered)) !== entries.get("murho.sha256")) {
    throw new ArtifactError(
      `${name} was changed or damaged after its export: its checksum differs. Export it again.`,
    );
  }
  const text = entries.get("murho");
  const card = parseCard(text);
  let outside;
  try {
    outside = reachesOutside(bytes);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // also of graphs in graphs without end
    throw new ArtifactError(`${name} is no file that murho.export writes: it is cut short.`);
  }
  if (outside) {
    throw new ArtifactError(
      `${name} is no file that murho.export writes: it takes a tensor from another file, and an artifact is one file.`,
    );
  }
  return { card, bytes, calibrationText: calibrationText(text) };
}

/** The bytes that `load` was given, or what they are read from: a path (Node.js), a URL, a File or Blob. */
export async function fetchBytes(source) {
  if (source instanceof Uint8Array) return { bytes: source, name: "The artifact" };
  if (source instanceof ArrayBuffer) return { bytes: new Uint8Array(source), name: "The artifact" };
  if (source instanceof Blob) {
    return { bytes: new Uint8Array(await source.arrayBuffer()), name: source.name ?? "The artifact" };
  }
  const name = String(source);
  try {
    if (globalThis.process?.versions?.node && !/^(https?|data|blob):/.test(name)) {
      const { readFile } = await import(/* @vite-ignore */ NODE_FILES);
      return { bytes: new Uint8Array(await readFile(name.startsWith("file:") ? new URL(name) : name)), name };
    }
    const response = await fetch(source);
    if (!response.ok) throw new Error(`${response.status} ${response.statusText}`.trim());
    return { bytes: new Uint8Array(await response.arrayBuffer()), name };
  } catch (error) {
    throw new ArtifactError(`Cannot read the artifact ${name}: ${error.message}.`);
  }
}

/** SHA-256 of text or bytes, in hex. */
export async function sha256(content) {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) {
    throw new ArtifactError(
      "The artifact's checksum cannot be computed, since browsers offer SHA-256 to secure pages only. " +
        "Serve this page over https, or from localhost.",
    );
  }
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  const digest = new Uint8Array(await subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Metadata entries, and the bytes that the digest covers. */
function scan(bytes, name) {
  const entries = new Map();
  const covered = new Uint8Array(bytes.length);
  let length = 0;
  try {
    for (const [number, start, body, end] of fields(bytes)) {
      if (number === METADATA) {
        const [key, value] = entry(bytes.subarray(body, end));
        entries.set(key, value);
        if (key === "murho.sha256") continue;
      }
      covered.set(bytes.subarray(start, end), length);
      length += end - start;
    }
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError)) throw error;
    throw new ArtifactError(
      `${name} is not a murho artifact, or is cut short: it reads neither as ONNX nor as a file of torch.`,
    );
  }
  return { entries, covered: covered.subarray(0, length) };
}

/** Whether a model, wherever in it, keeps a tensor in another file, which ONNX Runtime would then read. */
function reachesOutside(bytes, message = "model") {
  for (const [number, , body, end] of fields(bytes)) {
    if (message === "tensor" && (number === EXTERNAL_DATA || number === EXTERNAL_DATA + 1)) return true;
    const inner = WITHIN[message][number];
    if (inner && reachesOutside(bytes.subarray(body, end), inner)) return true;
  }
  return false;
}

function entry(pair) {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  const parts = ["", ""];
  for (const [number, , body, end] of fields(pair)) parts[number - 1] = decoder.decode(pair.subarray(body, end));
  return parts;
}

/** The card, checked as far as this runtime reads it. Throws ArtifactError for a newer or damaged one. */
export function parseCard(text) {
  let card;
  try {
    card = JSON.parse(exactIntegers(text));
    if (!Number.isInteger(card.schema)) throw new Error("no schema");
  } catch (error) {
    throw new ArtifactError(
      `The artifact's card cannot be read (${error.message}). The file is damaged: export it again.`,
    );
  }
  const schemas = [...GENERATORS.keys()];
  if (!GENERATORS.has(card.schema)) {
    const advice = card.schema > Math.max(...schemas) ? "Upgrade murho." : "Export it again.";
    throw new ArtifactError(
      `The artifact has card schema ${card.schema}; this murho reads ${schemas.join(" and ")}. ${advice}`,
    );
  }
  const missing = NEEDED.find((key) => card[key] === undefined);
  if (missing) {
    throw new ArtifactError(
      `The artifact's card lacks or garbles a field ('${missing}'). The file is damaged: export it again.`,
    );
  }
  const known = GENERATORS.get(card.schema);
  if (card.generator !== known) {
    throw new ArtifactError(
      `The artifact uses the generator '${card.generator}'; this murho knows '${known}'. Upgrade murho.`,
    );
  }
  return { ...card, seed: BigInt(card.seed) };
}

/** What is wrong with the numbers of an earlier generator; empty for the present one's. */
export function weakness(card) {
  if (card.generator === GENERATOR) return "";
  return (
    `'${card.name}' draws by the generator ${card.generator}, whose streams are not independent: observation noise ` +
    "and the first Bayesian layer's weights share half their radii, so that intervals with noise come out up to 12 % " +
    `too narrow or too wide. Export it again to draw by ${GENERATOR}.`
  );
}

/** JSON whose integers beyond 2^53, a seed for example, are strings, since JSON.parse would round them. */
function exactIntegers(text) {
  return text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) =>
    /^-?\d{16,}$/.test(token) && !Number.isSafeInteger(Number(token)) ? `"${token}"` : token,
  );
}

/** The calibration just as the card's text has it, which a saved state is bound to; "null" for none. */
function calibrationText(text) {
  const start = text.lastIndexOf('"calibration": ') + '"calibration": '.length;
  return text.startsWith("{", start) ? text.slice(start, text.indexOf("}", start) + 1) : "null";
}
