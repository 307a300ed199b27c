/**
 * Online calibration: keep the intervals honest while the world drifts, by adaptive conformal inference.
 *
 * The arithmetic is that of docs/design.md, "Honest intervals", with its sources in runtime/online.py. A state holds
 * [experts][levels][outputs] logarithms of factors (theta) and weights of the experts, and the forecasts whose truth is
 * still to come. It is replaced, never changed, and its JSON is that of Python's `save_state`, with the digest that
 * runtime/state_json.py describes.
 */

import { sha256 } from "./artifact.js";
import { score } from "./conformal.js";
import { ArtifactError } from "./errors.js";

const STEPS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const SHARE = 1 / 500;
const BOUND = 3;
const SMALLEST_SCORE = 1e-9;
const FORMAT = { format: "murho.state", schema: 2 };
const LARGEST_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;
/** Of a state's text, as in Python. */
const MOST_CHARACTERS = 2 ** 27;
/** Of a sum of weights, and by which an end may lie on the wrong side of its median. */
const ROUNDING = 1e-6;

/** The state before any truth is known. */
export function initial(levels, outputs) {
  const filled = (value) => STEPS.map(() => levels.map(() => new Array(outputs).fill(value)));
  return { levels, theta: filled(0), weights: filled(1 / STEPS.length), observed: 0, pending: [] };
}

/** Factors [outputs] at any level: interpolated in the logarithm, constant beyond the followed ones. */
export function factors(state, level) {
  const { levels, theta, weights } = state;
  const mean = (k, output) => STEPS.reduce((sum, _, expert) => sum + weights[expert][k][output] * theta[expert][k][output], 0);
  const above = levels.findIndex((followed) => followed >= level);
  const [low, high] = above < 0 ? [levels.length - 1, levels.length - 1] : [Math.max(above - 1, 0), above];
  return theta[0][0].map((_, output) => {
    const [from, to] = [mean(low, output), mean(high, output)];
    if (level <= levels[low] || low === high) return Math.exp(from);
    return Math.exp(from + ((to - from) / (levels[high] - levels[low])) * (level - levels[low]));
  });
}

/** The state after scores [levels][rows][outputs], NaN where the truth is not known: the mean of their steps. */
export function updated(state, scores) {
  const theta = structuredClone(state.theta);
  const weights = structuredClone(state.weights);
  state.levels.forEach((level, k) => {
    theta[0][k].forEach((_, output) => {
      const known = scores[k].map((row) => row[output]).filter((value) => !Number.isNaN(value));
      if (!known.length) return;
      const before = STEPS.map((_, expert) => ({ theta: theta[expert][k][output], weight: weights[expert][k][output] }));
      stepped(before, known, level).forEach((after, expert) => {
        theta[expert][k][output] = after.theta;
        weights[expert][k][output] = after.weight;
      });
    });
  });
  return { ...state, theta, weights, observed: state.observed + 1 };
}

/** The experts of one level and output after the scores of some rows. */
function stepped(experts, scores, level) {
  const logs = scores.map((value) => Math.log(Math.max(value, SMALLEST_SCORE)));
  const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const weights = experts.map(({ theta, weight }) => {
    const losses = logs.map((u) => (u > theta ? level : 1 - level) * Math.min(Math.abs(u - theta), 2 * BOUND));
    return weight * Math.exp(-mean(losses));
  });
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return experts.map(({ theta }, expert) => {
    const step = STEPS[expert] * (mean(logs.map((u) => Number(u > theta))) - (1 - level));
    return {
      theta: Math.min(Math.max(theta + step, -BOUND), BOUND),
      weight: ((1 - SHARE) * weights[expert]) / total + SHARE / STEPS.length,
    };
  });
}

/** The state with one more forecast, {median [rows][outputs], lower and upper [levels][rows][outputs], known: 0}. */
export function withForecast(state, forecast) {
  return { ...state, pending: [...state.pending, forecast] };
}

/**
 * The state after news of the pending forecasts, NaN where nothing is known.
 *
 * `truth` [rows][outputs] settles the latest forecast at once. `truth` [rows][1] is the next value of each series: the
 * first step of the latest forecast, the second of the one before, and so on; their scores count together.
 */
export function told(state, truth) {
  const outputs = state.theta[0][0].length;
  const { levels, pending } = state;
  if (truth[0].length === outputs) {
    const all = Array.from({ length: outputs }, (_, output) => output);
    const of = (k) => truth.map((row, r) => all.map((output) => scored(pending.at(-1), k, r, output, row[output])));
    return { ...updated(state, levels.map((_, k) => of(k))), pending: [] };
  }
  const matching = pending.filter((forecast) => forecast.median.length === truth.length);
  const scores = levels.map(() => truth.map(() => new Array(outputs).fill(NaN)));
  for (const forecast of matching) {
    const step = forecast.known;
    levels.forEach((_, k) =>
      truth.forEach(([value], row) => (scores[k][row][step] = scored(forecast, k, row, step, value))),
    );
  }
  const left = matching.map((forecast) => ({ ...forecast, known: forecast.known + 1 }));
  return { ...updated(state, scores), pending: left.filter((forecast) => forecast.known < outputs) };
}

function scored({ median, lower, upper }, k, row, output, truth) {
  return score(median[row][output], lower[k][row][output], upper[k][row][output], truth);
}

/** The state as text; `artifact` names what it belongs to. */
export async function toJson(state, artifact) {
  return JSON.stringify({ ...FORMAT, sha256: await digest(state, artifact), artifact, ...state });
}

/** Read a state of `artifact`, which has so many outputs. Throws ArtifactError for a damaged one, and for another's. */
export async function fromJson(text, artifact, outputs) {
  try {
    if (text.length > MOST_CHARACTERS) throw new Error(`${text.length} characters, more than ${MOST_CHARACTERS}`);
    const data = JSON.parse(text);
    if (data?.format !== FORMAT.format || data.schema !== FORMAT.schema) {
      throw new Error(`format ${data?.format}, schema ${data?.schema}; expected ${FORMAT.format}, ${FORMAT.schema}`);
    }
    const { format, schema, sha256: said, artifact: of, ...state } = data;
    if (of !== artifact) {
      throw new ArtifactError("The state belongs to another artifact or calibration. Load the one it was saved with.");
    }
    check(state, outputs);
    if (said !== (await digest(state, artifact))) throw new Error("its checksum differs");
    return state;
  } catch (error) {
    if (error instanceof ArtifactError) throw error;
    throw new ArtifactError(`This is not a state that saveState wrote, or it is damaged (${error.message}).`);
  }
}

/** SHA-256 over what the state belongs to and its numbers, in the order of runtime/state_json.py. */
function digest({ levels, theta, weights, observed, pending }, artifact) {
  const parts = [[levels.length, theta[0][0].length], levels, theta, weights, [observed, pending.length]];
  for (const { known, median, lower, upper } of pending) parts.push([known, median.length], median, lower, upper);
  const numbers = parts.flat(4);
  const head = new TextEncoder().encode(`${FORMAT.format} ${FORMAT.schema} ${artifact}`);
  const content = new Uint8Array(head.length + 8 * numbers.length);
  content.set(head);
  const view = new DataView(content.buffer, head.length);
  numbers.forEach((number, k) => view.setFloat64(8 * k, number + 0, true)); // -0 + 0 is 0
  return sha256(content);
}

/** Throw an Error that says what is wrong with a state. */
function check(state, outputs) {
  checkFields(state, ["levels", "theta", "weights", "observed", "pending"]);
  const { levels, theta, weights, observed, pending } = state;
  checkNumbers("levels", levels, levels?.length);
  const ascending = levels.every((level, k) => level > (levels[k - 1] ?? 0) && level < 1);
  if (!levels.length || !ascending) throw new Error("levels must ascend between 0 and 1");
  checkNumbers("theta", theta, STEPS.length, levels.length, outputs);
  checkNumbers("weights", weights, STEPS.length, levels.length, outputs);
  if (theta.flat(2).some((value) => Math.abs(value) > BOUND)) throw new Error(`theta must lie within ±${BOUND}`);
  const sum = (k, output) => weights.reduce((total, expert) => total + expert[k][output], 0);
  const areShares = weights[0].every((row, k) => row.every((_, output) => Math.abs(sum(k, output) - 1) <= ROUNDING));
  if (weights.flat(2).some((value) => value < 0) || !areShares) throw new Error("weights must be shares of 1");
  checkCount("observed", observed);
  if (!Array.isArray(pending) || pending.length >= outputs) {
    throw new Error(`pending must be at most ${outputs - 1} forecasts`);
  }
  pending.forEach((forecast, k) => checkForecast(forecast, levels.length, outputs, pending[k - 1]));
}

/** One that is still pending, after the one `before`. */
function checkForecast(forecast, levels, outputs, before) {
  checkFields(forecast, ["median", "lower", "upper", "known"]);
  const { median, lower, upper, known } = forecast;
  const rows = median?.length;
  if (!(rows > 0)) throw new Error("a forecast must be of at least one series");
  if (before && before.median.length !== rows) throw new Error("pending forecasts must be of as many series each");
  checkNumbers("median", median, rows, outputs);
  checkNumbers("lower", lower, levels, rows, outputs);
  checkNumbers("upper", upper, levels, rows, outputs);
  for (const value of [median, lower, upper].flat(4)) {
    if (Math.abs(value) > LARGEST_FLOAT32) throw new Error("a forecast must lie in the range of float32");
  }
  for (let k = 0; k < levels; k++) {
    median.forEach((row, r) =>
      row.forEach((middle, output) => {
        const [low, high] = [lower[k][r][output], upper[k][r][output]];
        const slack = ROUNDING * (Math.abs(low) + Math.abs(high));
        if (low > middle + slack || high < middle - slack) {
          throw new Error("lower and upper must lie on either side of the median");
        }
      }),
    );
  }
  checkCount("known", known);
  if (known < 1 || known >= (before?.known ?? outputs)) {
    throw new Error(`known must fall from forecast to forecast, between ${outputs - 1} and 1`);
  }
}

/** Nested arrays of just this shape, of finite numbers. */
function checkNumbers(name, value, ...shape) {
  let flat = [value];
  for (const size of shape) {
    if (!flat.every((part) => Array.isArray(part) && part.length === size)) {
      throw new Error(`${name} must have shape ${shape}`);
    }
    flat = flat.flat();
  }
  if (!flat.every(Number.isFinite)) throw new Error(`${name} must be finite numbers`);
}

function checkCount(name, value) {
  if (!Number.isSafeInteger(value) || value < 0) throw new Error(`${name} must be a count`);
}

function checkFields(data, expected) {
  const found = Object.keys(data ?? {});
  const wrong = expected.find((name) => !found.includes(name)) ?? found.find((name) => !expected.includes(name));
  if (wrong !== undefined) throw new Error(`${expected.includes(wrong) ? "it lacks" : "it has an unknown"} '${wrong}'`);
}
