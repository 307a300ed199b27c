/* The page's side of worker.js. */
"use strict";

class Forecaster {
  #worker;
  #calls = new Map();
  #count = 0;

  /** Start the worker and ONNX Runtime in it, from what engine.js brings. */
  static async start({ worker, ...parts }) {
    const forecaster = new Forecaster(new Worker(URL.createObjectURL(new Blob([worker], { type: "text/javascript" }))));
    await forecaster.#ask("start", parts);
    return forecaster;
  }

  constructor(worker) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => this.#answered(data);
    worker.onerror = (event) => {
      for (const { reject } of this.#calls.values()) reject(new Error(event.message ?? "its worker did not start"));
    };
  }

  /** The card of an artifact: {file}, or {name, packed} from data.js. It is used once `keep` is called. */
  load(artifact) {
    return this.#ask("load", artifact);
  }

  keep() {
    return this.#ask("keep");
  }

  /** The answer to {x, draws, level: [levels], seed, paths}, or null where a later call overtook this one. */
  async predict(request) {
    try {
      return await this.#ask("predict", request);
    } catch (error) {
      if (error.name === "AbortError") return null;
      throw error;
    }
  }

  #ask(task, details) {
    return new Promise((resolve, reject) => {
      const id = this.#count++;
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, task, details });
    });
  }

  #answered({ id, result, error }) {
    const { resolve, reject } = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) reject(Object.assign(new Error(error.message), { name: error.name }));
    else resolve(result);
  }
}
