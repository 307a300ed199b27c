/**
 * Online calibration: keep the intervals honest while the world drifts, by adaptive conformal inference.
 *
 * The arithmetic is that of docs/design.md, "Honest intervals", with its sources in runtime/online.py. A state holds
 * [experts][levels][outputs] logarithms of factors (theta) and weights of the experts, and the forecasts whose truth is
 * still to come. It is replaced, never changed, and its JSON is that of Python's `save_state`.
 */

import { score } from "./conformal.js";
import { ArtifactError } from "./errors.js";

const STEPS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
const SHARE = 1 / 500;
const BOUND = 3;
const SMALLEST_SCORE = 1e-9;
const FORMAT = { format: "murho.state", schema: 1 };

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
export function toJson(state, artifact) {
  return JSON.stringify({ ...FORMAT, artifact, ...state });
}

/** Read a state. Throws ArtifactError for a damaged one, and one of another artifact. */
export function fromJson(text, artifact) {
  let data;
  try {
    data = JSON.parse(text);
    if (data.format !== FORMAT.format || data.schema !== FORMAT.schema) {
      throw new Error(`format ${data.format}, schema ${data.schema}`);
    }
    for (const part of [data.theta, data.weights]) {
      if (part.length !== STEPS.length || part.some((expert) => expert.length !== data.levels.length)) {
        throw new Error(`shape ${part.length}`);
      }
    }
    if (!Array.isArray(data.pending) || !Number.isInteger(data.observed)) throw new Error("no pending forecasts");
  } catch (error) {
    throw new ArtifactError(`This is not a state that saveState wrote, or it is damaged (${error.message}).`);
  }
  if (data.artifact !== artifact) {
    throw new ArtifactError(
      "The state belongs to another artifact or calibration. Load the one it was saved with.",
    );
  }
  const { levels, theta, weights, observed, pending } = data;
  return { levels, theta, weights, observed, pending };
}
