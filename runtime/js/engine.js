/** Evaluate draws with ONNX Runtime, chunk by chunk, so that a page stays responsive. */

import { ArtifactError, MurhoError } from "./errors.js";
import { count } from "./inputs.js";

const VECTOR = 16; // draws: chunks of whole vectors give the same samples however the draws are split
const FIRST_CHUNK = 64;
const MAX_CHUNK = 1024;
const IN_NODE = Boolean(globalThis.process?.versions?.node);
const NODE_MODULES = ["node:module", "node:url"]; // by a variable: bundlers look for what is written in an import
const CHUNK_MS = 30; // below 50, from which on a page is felt to lag

/** ONNX Runtime: what was passed, or a module by its name or address, or the one that suits Node.js or the browser. */
export async function runtimeOf(backend) {
  const given = backend && typeof backend === "object" && !(backend instanceof URL);
  const module = given ? backend : await imported(backend);
  return module.InferenceSession ? module : module.default;
}

async function imported(backend) {
  const name = backend ? addressOf(String(backend)) : IN_NODE ? "onnxruntime-node" : "onnxruntime-web/wasm";
  try {
    // Bundlers find the second name, and leave the first one to the browser or Node.js.
    return await (backend || IN_NODE ? import(/* @vite-ignore */ name) : import("onnxruntime-web/wasm"));
  } catch (error) {
    const place = error.code === "ERR_MODULE_NOT_FOUND" && (await inProgram(name));
    if (place) return import(/* @vite-ignore */ place);
    throw new MurhoError(`Cannot load ONNX Runtime from ${name}: ${error.message}. Install it, or say where: backend.`);
  }
}

/** Where the program that runs has a package: one that npm has linked to this folder looks beside this file in vain. */
async function inProgram(name) {
  const [{ createRequire }, { pathToFileURL }] = await Promise.all(NODE_MODULES.map((part) => import(/* @vite-ignore */ part)));
  try {
    return pathToFileURL(createRequire(process.argv[1] ?? `${process.cwd()}/`).resolve(name)).href;
  } catch {
    return null;
  }
}

/** A module's name as it is; a relative address is the page's, not this file's. */
function addressOf(name) {
  return /^\.{0,2}\//.test(name) && globalThis.document ? new URL(name, document.baseURI).href : name;
}

export class Engine {
  static async open({ card, bytes }, ort, name) {
    // Threads inside the operators hardly help at small batches.
    const options = { executionProviders: ["cpu"], intraOpNumThreads: 1, logSeverityLevel: 3 };
    let session;
    try {
      session = await ort.InferenceSession.create(bytes, options);
    } catch (error) {
      throw new ArtifactError(`ONNX Runtime cannot load ${name}: ${error.message}`);
    }
    return new Engine(card, ort, session);
  }

  constructor(card, ort, session) {
    this.card = card;
    this.ort = ort;
    this.session = session;
    this.chunks = new Map(); // draws per chunk, by the inputs' shapes
  }

  /**
   * Samples {data, dims} [S, B, …] of draws [S] for validated inputs.
   * @param {{data: Float32Array | BigInt64Array, dims: number[]}[]} inputs
   * @param {Uint32Array} draws
   * @param {bigint} seed
   * @param {boolean} noise with observation noise, where the artifact has any
   * @param {{onProgress?: (done: number, of: number) => void, signal?: AbortSignal, chunk?: number}} how
   */
  async samples(inputs, draws, seed, noise, { onProgress, signal, chunk }) {
    const shape = inputs.map((input) => input.dims.join("×")).join();
    let size = chunk ?? this.chunks.get(shape) ?? FIRST_CHUNK;
    let all, dims;
    for (let start = 0; start < draws.length; ) {
      signal?.throwIfAborted();
      const names = draws.subarray(start, start + size);
      const began = performance.now();
      const part = await this.#run(inputs, names, seed, noise);
      if (!chunk) size = suited(size, names.length, performance.now() - began);
      dims ??= [draws.length, ...part.dims.slice(1)];
      const width = count(dims.slice(1));
      all ??= new Float32Array(draws.length * width);
      all.set(part.data.subarray(0, names.length * width), start * width);
      start += names.length;
      onProgress?.(start, draws.length);
      if (start < draws.length) await breath();
    }
    this.chunks.set(shape, size);
    return { data: all, dims };
  }

  async #run(inputs, names, seed, noise) {
    const padded = new BigInt64Array(Math.ceil(names.length / VECTOR) * VECTOR);
    names.forEach((name, k) => (padded[k] = BigInt(name)));
    const tensor = (type, data, dims) => new this.ort.Tensor(type, data, dims);
    const feeds = {
      draws: tensor("int64", padded, [padded.length]),
      seed: tensor("int64", BigInt64Array.of(seed), []),
      levels: tensor("float32", Float32Array.of(0.5), [1]),
    };
    this.card.inputs.forEach((array, k) => (feeds[array.name] = tensor(array.dtype, inputs[k].data, inputs[k].dims)));
    if (this.card.noise) feeds.noise = tensor("float32", Float32Array.of(Number(noise)), []);
    for (const state of this.card.states) {
      const dims = [padded.length, inputs[0].dims[0], state.shape[2]];
      feeds[state.name] = tensor("float32", new Float32Array(count(dims)), dims);
    }
    return (await this.session.run(feeds, ["samples"])).samples;
  }

  /** Free what ONNX Runtime holds. */
  async release() {
    await this.session.release();
  }
}

/** Draws per chunk that take CHUNK_MS, from what the last chunk took: by halves and doubles, so no hiccup misleads. */
function suited(size, draws, milliseconds) {
  if (draws < size) return size; // the last, shorter chunk says little
  const fitting = (draws * CHUNK_MS) / Math.max(milliseconds, 0.1);
  if (fitting >= 2 * size) return Math.min(2 * size, MAX_CHUNK);
  return fitting < size && size % (2 * VECTOR) === 0 ? size / 2 : size;
}

/** Let the page, the worker or the server do what waits, an abort for example, before the next chunk. */
function breath() {
  if (globalThis.setImmediate) return new Promise((resolve) => setImmediate(resolve));
  return new Promise((resolve) => {
    // scheduler.yield would let no message through, and setTimeout waits 4 ms, in a hidden page a second.
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => resolve(port1.close());
    port2.postMessage(null);
  });
}
