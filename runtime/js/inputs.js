/** What a caller passes, checked at the door: shape, type, finiteness, range; with the messages of Python's runtime. */

import { InputError } from "./errors.js";
import { checkScaled, general, placeIn } from "./finite.js";

const MAX_DRAWS = 2 ** 32; // the generator takes draws modulo 2^32
const MAX_SAMPLE_BYTES = 2 ** 31;
const DEEPEST = 64; // axes: as many as numpy has
const NUMBERS = new Map([
  [Float32Array, "float32"],
  [Float64Array, "float64"],
  [BigInt64Array, "int64"],
  [BigUint64Array, "uint64"],
  [Int8Array, "int8"],
  [Int16Array, "int16"],
  [Int32Array, "int32"],
  [Uint8Array, "uint8"],
  [Uint8ClampedArray, "uint8"],
  [Uint16Array, "uint16"],
  [Uint32Array, "uint32"],
]);

/**
 * Every input as {data, dims} with a batch axis, of the type that the card says.
 *
 * `x` is nested arrays of numbers, or {data, dims} with a typed array or array; of a network with several inputs an
 * object by their names, or an array of as many.
 */
export function asInputs(card, x) {
  const expected = card.inputs;
  const names = expected.map((array) => array.name);
  let parts;
  if (isMapping(x)) {
    if (names.length !== Object.keys(x).length || names.some((name) => !Object.hasOwn(x, name))) {
      throw new InputError(`x must have the inputs ${names.join(", ")}, but has ${Object.keys(x).join(", ")}.`);
    }
    parts = names.map((name) => x[name]);
  } else if (expected.length === 1) parts = [x];
  else if (Array.isArray(x) && x.length === expected.length) parts = x;
  else {
    const wanted = expected.map((array) => `${array.name} [${described(array)}]`).join(", ");
    throw new InputError(`This network has ${expected.length} inputs: pass a dict or tuple of ${wanted}.`);
  }
  const arrays = parts.map((part, k) => checked(part, expected[k]));
  const rows = arrays.filter((_, k) => !isShared(expected[k])).map((array) => array.dims[0]);
  if (new Set(rows).size > 1) {
    throw new InputError(`Every input needs the same number of rows, but they have [${rows.join(", ")}].`);
  }
  checkEquallyLong(expected, arrays);
  checkScaled(card, arrays[0]);
  return arrays;
}

/** Names of draws, as numbers, all different. */
export function asDraws(card, draws) {
  draws = draws ?? card.draws;
  const { data, dims, dtype } = arrayOf(draws) ?? { dtype: "ragged" };
  if (!isInteger(dtype)) {
    throw new InputError(
      `draws must be a number of draws or an integer array of their names, not ${repr(draws)}.`,
    );
  }
  if (!dims.length) {
    const count = Number(data[0]);
    if (count < 2) throw new InputError(`draws must be at least 2, since one draw has no spread; got ${count}.`);
    checkMemory(card, 1, count);
    return Uint32Array.from({ length: count }, (_, k) => k);
  }
  if (dims.length !== 1 || dims[0] < 2) {
    throw new InputError(
      `draws must be a number, or a one-dimensional array of at least 2 names; got shape ${tuple(dims)}.`,
    );
  }
  const [least, most] = range(data);
  if (least < 0 || most >= MAX_DRAWS) {
    throw new InputError(`Names of draws must lie in 0 … 2^32 - 1; got ${least} … ${most}.`);
  }
  const found = Uint32Array.from(data, Number);
  const ordered = found.slice().sort();
  const twice = ordered.findIndex((name, k) => k && ordered[k - 1] === name);
  if (twice >= 0) {
    throw new InputError(`draws must differ, since a repeated draw adds nothing; ${ordered[twice]} comes more than once.`);
  }
  return found;
}

/** Levels as an array, and whether there was a single one. */
export function asLevels(card, level) {
  level = level ?? (card.levels.length === 1 ? card.levels[0] : card.levels);
  const { data, dims, dtype } = arrayOf(level) ?? { dtype: "ragged" };
  if (!isNumber(dtype) || dims.length > 1 || !data.length) {
    throw new InputError(`level must be a number such as 0.95, or several, not ${repr(level)}.`);
  }
  const levels = Array.from(data, Number);
  if (!levels.every((value) => value > 0 && value < 1)) {
    throw new InputError(`level must lie between 0 and 1, for example 0.95 for 95 %; got ${repr(level)}.`);
  }
  return { levels, single: !dims.length };
}

/** A seed of 64 bits, as a BigInt. */
export function asSeed(card, seed) {
  const value = seed ?? card.seed;
  const whole = typeof value === "bigint" || Number.isInteger(value);
  if (!whole || BigInt(value) < -(2n ** 63n) || BigInt(value) >= 2n ** 63n) {
    throw new InputError(`seed must be an integer of 64 bits, not ${repr(value)}.`);
  }
  if (typeof value === "number" && !Number.isSafeInteger(value)) {
    throw new InputError(`A seed beyond 2^53 loses digits as a number: pass a BigInt, such as ${BigInt(value)}n.`);
  }
  return BigInt(value);
}

/** Refuse a size of chunks that would not keep the samples the same. */
export function checkChunk(chunk) {
  if (chunk !== undefined && !(Number.isInteger(chunk) && chunk > 0 && chunk % 16 === 0)) {
    throw new InputError(`chunk must be a positive multiple of 16, not ${repr(chunk)}.`);
  }
}

/** Refuse a switch that is neither true nor false. */
export function checkSwitch(name, value) {
  if (typeof value !== "boolean") throw new InputError(`${name} must be True or False, not ${repr(value)}.`);
}

/** Refuse to make more ends of intervals, and errors of ends, than fit. */
export function checkEndsFit({ outputs: [{ shape }] }, rows, levels) {
  const total = 16 * levels * rows * count(shape.slice(1).map((size) => size ?? 1));
  if (total > MAX_SAMPLE_BYTES) {
    throw new InputError(
      `${levels} levels of ${rows} rows make ${(total / 2 ** 30).toFixed(1)} GiB of intervals; at most ` +
        `${MAX_SAMPLE_BYTES / 2 ** 30} GiB are returned from one call. Ask for fewer levels or fewer rows.`,
    );
  }
}

/** Refuse to make more samples than fit. */
export function checkMemory(card, rows, draws) {
  const sizes = card.outputs.map(({ shape }) => count(shape.slice(1).map((size) => size ?? 1)));
  const total = 4 * draws * rows * sizes.reduce((sum, size) => sum + size, 0);
  if (total > MAX_SAMPLE_BYTES) {
    throw new InputError(
      `${draws} draws of ${rows} rows make ${(total / 2 ** 30).toFixed(1)} GiB of samples; at most ` +
        `${MAX_SAMPLE_BYTES / 2 ** 30} GiB are returned from one call. Ask for fewer draws or fewer rows.`,
    );
  }
}

/** Refuse an artifact without a place for factors: its output must be [B, O], and no class probability. */
export function checkCanBeCalibrated(card) {
  const [output] = card.outputs;
  if (output.shape.length !== 2 || card.task === "classification") {
    throw new InputError(
      `Only intervals of values [batch, ${output.axes.at(-1)}] can be calibrated, no probabilities; this ` +
        `artifact's output is [${described(output)}], its task ${card.task}.`,
    );
  }
}

/** What became known of `rows` rows, [rows][1 or O]: of a forecast the next value, else every output. */
export function asNews(card, y, rows) {
  const [output] = card.outputs;
  const width = card.task === "forecast" || card.horizon > 1 ? 1 : output.shape[1];
  const { data, dims, dtype } = arrayOf(y) ?? { dtype: "float64", dims: [0], data: [] };
  if (!isNumber(dtype)) throw new InputError(`y must hold numbers, not ${dtype}. Convert it first.`);
  const shape = width === 1 && dims.length < 2 ? [data.length, 1] : dims;
  if (shape.length !== 2 || shape[0] !== rows || shape[1] !== width) {
    throw new InputError(
      `y must be [rows = ${rows}, ${output.axes.at(-1)} = ${width}], as was predicted, but is ${tuple(shape)}.`,
    );
  }
  const values = Array.from(data, Number);
  if (values.some((value) => Math.abs(value) === Infinity)) {
    throw new InputError("y must be finite, or NaN where the truth is not known, but holds infinity.");
  }
  return Array.from({ length: rows }, (_, row) => values.slice(row * width, (row + 1) * width));
}

/** Refuse free axes of one name that are not equally long. */
function checkEquallyLong(expected, arrays) {
  const found = new Map();
  expected.forEach(({ name, axes, shape }, k) =>
    axes.forEach((axis, j) => {
      const got = arrays[k].dims[j];
      if (shape[j] !== null) return;
      if (!found.has(axis)) found.set(axis, { name, length: got });
      const { name: first, length } = found.get(axis);
      if (got === length) return;
      throw new InputError(`${name} must have ${length} along its ${axis} axis, as ${first} has, but has ${got}.`);
    }),
  );
}

/** Whether all rows of a batch share an input: it has no batch axis. */
function isShared({ axes }) {
  return !axes.includes("batch");
}

function checked(x, expected) {
  const { name } = expected;
  const shape = described(expected);
  const array = arrayOf(x);
  if (!array) throw new InputError(`${name} must be an array [${shape}]: ${ragged(x)}`);
  const { data, dims, dtype } = array;
  const fits = { float32: isNumber, int64: isInteger, bool: (type) => type === "bool" }[expected.dtype];
  if (!fits(dtype)) {
    const what = expected.dtype === "bool" ? "True and False alone" : `numbers that fit ${expected.dtype}`;
    throw new InputError(`${name} must hold ${what}, not ${dtype}. Convert it first.`);
  }
  if (dims.length !== expected.shape.length) {
    const single = isShared(expected) ? "All rows share it." : `A single row needs a batch axis too: ${name}[None].`;
    throw new InputError(
      `${name} must have ${expected.shape.length} axes [${shape}], but has ${dims.length}: ${tuple(dims)}. ${single}`,
    );
  }
  expected.axes.forEach((axis, k) => {
    const size = expected.shape[k];
    if (size === null || dims[k] === size) return;
    if (axis === "time") throw new InputError(`${name} needs ${size} steps, got ${dims[k]}: expected [${shape}].`);
    const last = expected.names.length && axis === expected.axes.at(-1);
    const names = last ? ` (${expected.names.join(", ")})` : "";
    throw new InputError(
      `${name} must have ${size} along its ${axis} axis${names}, but has ${dims[k]}: expected [${shape}].`,
    );
  });
  if (!data.length) {
    throw new InputError(`${name} is empty: ${tuple(dims)}. Expected [${shape}] with at least one of each.`);
  }
  if (expected.dtype === "bool") return { data: Uint8Array.from(data, Number), dims };
  const values = expected.dtype === "int64" ? tokens(data, expected) : finite(data, dims, name);
  if (Array.isArray(expected.limit)) checkCategories(values, expected);
  return { data: values, dims };
}

const shown = (value) => (typeof value === "bigint" ? String(value) : general(value));

/** Refuse categories that the network does not know. */
function checkCategories(values, { name, names, limit }) {
  limit.forEach((most, column) => {
    if (most === null) return;
    const [low, high] = range(values.filter((_, k) => k % limit.length === column));
    if (low >= 0 && high < most) return;
    const called = names.length ? ` (${names[column]})` : "";
    throw new InputError(
      `Column ${column}${called} of ${name} must hold categories from 0 to ${most - 1}, but has ` +
        `${shown(low)} … ${shown(high)}.`,
    );
  });
}

function finite(data, dims, name) {
  const values = data instanceof Float32Array ? data : Float32Array.from(data, Number);
  const at = values.findIndex((value) => !Number.isFinite(value));
  if (at >= 0) {
    throw new InputError(
      `${name} must be finite, but ${name}[${placeIn(at, dims).join(", ")}] is ${repr(values[at])}. ` +
        "Fill or drop such rows first.",
    );
  }
  return values;
}

function tokens(data, { name, limit }) {
  const [from, to] = typeof limit === "number" ? [0, limit - 1] : [-(2n ** 63n), 2n ** 63n - 1n];
  const [least, most] = range(data);
  if (least < from || most > to) {
    throw new InputError(`${name} must hold tokens from ${from} to ${to}, but has ${least} … ${most}.`);
  }
  return BigInt64Array.from(data, BigInt);
}

/** {data, dims, dtype} of a number, nested arrays, a typed array or {data, dims}; null where rows differ in length. */
function arrayOf(x) {
  if (ArrayBuffer.isView(x)) return { data: x, dims: [x.length], dtype: NUMBERS.get(x.constructor) ?? "object" };
  if (isTensor(x)) {
    const { data, dims: flatly, dtype } = arrayOf(x.data) ?? { dims: [] };
    const dims = Array.from(x.dims ?? [], Number);
    if (flatly.length !== 1 || !dims.every((size) => Number.isSafeInteger(size) && size >= 0)) {
      throw new InputError("An array {data, dims} has flat data, the last axis fastest, and dims of whole numbers from 0.");
    }
    if (count(dims) !== data.length) {
      throw new InputError(`An array of dims ${tuple(dims)} holds ${count(dims)} values, but its data has ${data.length}.`);
    }
    return { data, dims, dtype };
  }
  const dims = homogeneous(x);
  if (!dims.complete) return null;
  const data = dims.length ? flat(x) : [x];
  return { data, dims: [...dims], dtype: dtypeOf(data) };
}

/** Sizes of the axes that all rows of nested arrays share; `complete` where there are no others. */
function homogeneous(x) {
  const dims = [];
  let layer = [x];
  while (dims.length <= DEEPEST && layer.length && layer.every(isArray) && layer.every((item) => item.length === layer[0].length)) {
    dims.push(layer[0].length);
    layer = layer.flatMap((item) => Array.from(item));
  }
  dims.complete = !layer.some(isArray);
  return dims;
}

/** numpy's words for rows of unequal length. */
function ragged(x) {
  const dims = homogeneous(x);
  return (
    "setting an array element with a sequence. The requested array has an inhomogeneous shape after " +
    `${dims.length} dimensions. The detected shape was ${tuple(dims)} + inhomogeneous part.`
  );
}

/** All values of nested arrays; a hole is undefined, which flatMap alone would pass over. */
function flat(x) {
  return Array.from(x).flatMap((item) => (isArray(item) ? flat(item) : [item]));
}

function isArray(item) {
  return Array.isArray(item) || (ArrayBuffer.isView(item) && "length" in item);
}

/** The name that numpy would give the type. */
function dtypeOf(values) {
  const are = (type) => values.length > 0 && values.every((value) => typeof value === type);
  const fits = (value) => typeof value !== "bigint" || (value >= -(2n ** 63n) && value < 2n ** 64n);
  if (!values.every(fits)) return "object";
  if (values.every((value) => typeof value === "bigint" || Number.isInteger(value)) && values.length) return "int64";
  if (values.every((value) => typeof value === "bigint" || typeof value === "number")) return "float64";
  if (are("boolean")) return "bool";
  if (are("string")) return `<U${Math.max(1, ...values.map((value) => value.length))}`;
  return "object";
}

function isMapping(x) {
  return x !== null && typeof x === "object" && !Array.isArray(x) && !ArrayBuffer.isView(x) && !isTensor(x);
}

function isTensor(x) {
  return x !== null && typeof x === "object" && "data" in x && "dims" in x;
}

function isInteger(dtype) {
  return /^u?int/.test(dtype);
}

function isNumber(dtype) {
  return isInteger(dtype) || dtype.startsWith("float");
}

function range(values) {
  return values.reduce(([low, high], value) => [value < low ? value : low, value > high ? value : high], [
    values[0],
    values[0],
  ]);
}

export function count(dims) {
  return dims.reduce((product, size) => product * size, 1);
}

function described(array) {
  return array.axes.map((axis, k) => (array.shape[k] === null ? axis : `${axis} = ${array.shape[k]}`)).join(", ");
}

/** A shape as Python prints it. */
function tuple(dims) {
  return dims.length === 1 ? `(${dims[0]},)` : `(${dims.join(", ")})`;
}

/** A value as Python prints it. */
function repr(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return `'${value}'`;
  if (Array.isArray(value)) return `[${value.map(repr).join(", ")}]`;
  if (value === Infinity || value === -Infinity) return value < 0 ? "-inf" : "inf";
  return Number.isNaN(value) ? "nan" : String(value);
}
