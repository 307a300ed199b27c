/** Options, checked at the door: one that is misspelt would else count as not given. */

import { InputError } from "./errors.js";

export const LOAD = ["backend"];
export const PREDICT = ["draws", "level", "seed", "noise", "calibrated", "chunk", "onProgress", "signal"];

/** Refuse what is no object, and names that `method` does not know. */
export function checkOptions(method, options, known) {
  if (options === null || typeof options !== "object" || Array.isArray(options)) {
    throw new InputError(`The options of ${method} must be an object, such as {${known[0]}: …}, not ${String(options)}.`);
  }
  const unknown = Object.keys(options).filter((name) => !known.includes(name));
  if (unknown.length) {
    throw new InputError(`${method} has no option ${unknown.join(", ")}. It knows: ${known.join(", ")}.`);
  }
}

/** Refuse arguments of a method beyond those that it has. */
export function checkNoMore(method, rest) {
  if (rest.length) throw new InputError(`${method} takes no options, but got ${rest.length} more than it has arguments.`);
}

/** What `predict` is to call, and what may stop it. */
export function checkCallbacks({ onProgress, signal }) {
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw new InputError("onProgress must be a function (done, of).");
  }
  if (signal !== undefined && typeof signal?.throwIfAborted !== "function") {
    throw new InputError("signal must be an AbortSignal, that of an AbortController.");
  }
}
