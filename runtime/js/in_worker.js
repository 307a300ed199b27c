/** The same model, evaluated in a Web Worker: the page stays free even while one chunk of draws is computed. */

import { ArtifactError, InputError, MurhoError } from "./errors.js";
import { LOAD, PREDICT, checkCallbacks, checkNoMore, checkOptions } from "./options.js";

const ERRORS = { ArtifactError, InputError, MurhoError };

/**
 * Open an artifact in a worker of its own. As `load`, but `backend` must be the address of a module, since import maps
 * do not reach into workers.
 */
export async function loadInWorker(source, options = {}) {
  checkOptions("loadInWorker", options, LOAD);
  const { backend } = options;
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  const model = new WorkerModel(worker);
  const absolute = (address) => (/^\.{0,2}\//.test(address) ? new URL(address, document.baseURI).href : address);
  const place = typeof source === "string" || source instanceof URL ? new URL(source, document.baseURI).href : source;
  try {
    model.card = await model.call("load", [place, { backend: backend && absolute(String(backend)) }]);
    return model;
  } catch (error) {
    worker.terminate();
    throw error;
  }
}

class WorkerModel {
  #worker;
  #calls = new Map();
  #count = 0;
  #failure = null; // why no further call can be answered

  constructor(worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#answered(data);
    worker.onerror = (event) => this.#fail(new MurhoError(`The worker failed: ${event.message}`));
  }

  async predict(x, given = {}) {
    checkOptions("predict", given, PREDICT);
    checkCallbacks(given);
    const { onProgress, signal, ...options } = given;
    signal?.throwIfAborted();
    const id = this.#count;
    const abort = () => this.#worker.postMessage({ id, abort: true });
    signal?.addEventListener("abort", abort, { once: true });
    return this.call("predict", [x, options], onProgress).finally(() => signal?.removeEventListener("abort", abort));
  }

  async observe(y, ...rest) {
    checkNoMore("observe", rest);
    return this.call("observe", [y]);
  }

  async saveState(...rest) {
    checkNoMore("saveState", rest);
    return this.call("saveState", []);
  }

  async loadState(text, ...rest) {
    checkNoMore("loadState", rest);
    return this.call("loadState", [text]);
  }

  /** End the worker. */
  async release() {
    this.#worker.terminate();
    this.#fail(new MurhoError("The model was released."));
  }

  call(method, values, onProgress) {
    if (this.#failure) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const id = this.#count++;
      try {
        this.#worker.postMessage({ id, method, values });
      } catch (error) {
        throw new InputError(`This cannot be handed to a worker: ${error.message}`);
      }
      this.#calls.set(id, { resolve, reject, onProgress });
    });
  }

  #answered({ id, progress, error, result }) {
    const call = this.#calls.get(id);
    if (!call) return;
    if (progress) return call.onProgress?.(...progress);
    this.#calls.delete(id);
    if (!error) return call.resolve(result);
    const known = ERRORS[error.name];
    call.reject(known ? new known(error.message) : new DOMException(error.message, error.name));
  }

  #fail(error) {
    this.#failure = error;
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
  }
}
