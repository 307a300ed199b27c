/** The worker's side of in_worker.js: a model that answers messages. */

import { load } from "./murho.js";

const aborts = new Map();
let model;

self.onmessage = async ({ data: { id, method, values, abort } }) => {
  if (abort) return aborts.get(id)?.abort();
  try {
    const result = await answered(id, method, values);
    self.postMessage({ id, result }, buffers(result));
  } catch (error) {
    self.postMessage({ id, error: { name: error.name, message: error.message } });
  } finally {
    aborts.delete(id);
  }
};

async function answered(id, method, values) {
  if (method === "load") {
    model = await load(...values);
    return model.card;
  }
  if (method !== "predict") return model[method](...values);
  const controller = new AbortController();
  aborts.set(id, controller);
  const onProgress = (...progress) => self.postMessage({ id, progress });
  return model.predict(values[0], { ...values[1], onProgress, signal: controller.signal });
}

/** The arrays of an answer, which are handed over rather than copied. */
function buffers(result) {
  return Object.values(result ?? {}).flatMap((part) => (part?.data instanceof Float32Array ? [part.data.buffer] : []));
}
