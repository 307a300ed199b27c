/**
 * Prediction intervals from murho's ONNX artifacts, in browsers and Node.js.
 *
 *     import { load } from "./murho.js";
 *     const model = await load("model.onnx");
 *     const { lower, upper } = await model.predict(x, { draws: 256, level: 0.9, seed: 0 });
 *
 * Types and what each function takes are in murho.d.ts.
 */

import { fetchBytes, read, sha256, weakness } from "./artifact.js";
import { factorsAt, stretch } from "./conformal.js";
import { Engine, runtimeOf } from "./engine.js";
import { InputError } from "./errors.js";
import { checkAnswer, checkEnds } from "./finite.js";
import {
  asDraws,
  asInputs,
  asLevels,
  asNews,
  asSeed,
  checkCanBeCalibrated,
  checkChunk,
  checkEndsFit,
  checkMemory,
  checkSwitch,
  count,
} from "./inputs.js";
import { Quantiles, moments } from "./intervals.js";
import * as online from "./online.js";
import { LOAD, PREDICT, checkCallbacks, checkNoMore, checkOptions } from "./options.js";

export { ArtifactError, InputError, MurhoError } from "./errors.js";
export { loadInWorker } from "./in_worker.js";

/**
 * Open an artifact: bytes, a File, a URL, or in Node.js a path.
 *
 * `backend` is ONNX Runtime, or the name or address of its module; by default onnxruntime-node in Node.js, and
 * "onnxruntime-web/wasm" in browsers, which a bundler or an import map resolves.
 */
export async function load(source, options = {}) {
  checkOptions("load", options, LOAD);
  const { backend } = options;
  const { bytes, name } = await fetchBytes(source);
  const artifact = await read(bytes, name);
  const warning = weakness(artifact.card);
  if (warning) console.warn(warning);
  return new Model(artifact, await Engine.open(artifact, await runtimeOf(backend), name));
}

export class Model {
  #engine;
  #calibrationText;
  #online = null;
  #latest = null; // {quantiles, rows} of the latest prediction, which `observe` will be told of

  constructor({ card, calibrationText }, engine) {
    this.card = card;
    this.#engine = engine;
    this.#calibrationText = calibrationText;
  }

  /** Intervals of a batch of B rows, in raw units. */
  async predict(x, options = {}) {
    const { card } = this;
    checkOptions("predict", options, PREDICT);
    checkCallbacks(options);
    const { draws, level, seed, noise = true, calibrated = true, chunk, onProgress, signal } = options;
    checkSwitch("noise", noise);
    checkSwitch("calibrated", calibrated);
    checkChunk(chunk);
    const names = asDraws(card, draws);
    const nominal = asLevels(card, level);
    const key = asSeed(card, seed);
    const inputs = asInputs(card, x);
    const adapted = noise && calibrated;
    if (adapted) this.#checkLevels(nominal.levels);
    const rows = inputs[0].dims[0];
    checkMemory(card, rows, names.length);
    checkEndsFit(card, rows, nominal.levels.length);
    const samples = await this.#engine.samples(inputs, names, key, noise, { onProgress, signal, chunk });
    checkAnswer(card, samples);
    const quantiles = new Quantiles(samples.data, count(samples.dims.slice(1)));
    const ends = nominal.levels.map((one) => this.#ends(quantiles, one, adapted, this.#online));
    const found = answer(samples, ends, nominal, names, key);
    checkEnds(rows, found.std.data, ...ends.map(({ lower }) => lower), ...ends.map(({ upper }) => upper));
    if (adapted) this.#latest = { quantiles, rows };
    return found;
  }

  /** Tell the truth about the latest prediction, so that the next interval is as wide as it must be. */
  observe(y, ...rest) {
    checkNoMore("observe", rest);
    checkCanBeCalibrated(this.card);
    let state = this.#online ?? this.#fresh();
    if (this.#latest) state = online.withForecast(state, this.#forecast(state.levels));
    if (!state.pending.length) {
      throw new InputError("Nothing was predicted yet whose truth could be told. Call predict first.");
    }
    this.#online = online.told(state, asNews(this.card, y, state.pending.at(-1).median.length));
    this.#latest = null;
  }

  /** What `observe` has learnt, as the JSON that Python's `load_state` reads too. */
  async saveState(...rest) {
    checkNoMore("saveState", rest);
    return online.toJson(this.#online ?? this.#fresh(), await this.#identity());
  }

  /** Go on from a state that `saveState`, or Python's `save_state`, wrote. */
  async loadState(text, ...rest) {
    checkNoMore("loadState", rest);
    this.#online = await online.fromJson(text, await this.#identity(), this.#fresh().theta[0][0].length);
    this.#latest = null;
  }

  /** Free the memory that ONNX Runtime holds; the model is of no use afterwards. */
  async release() {
    await this.#engine.release();
  }

  #checkLevels(levels) {
    const most = this.card.calibration?.levels.at(-1);
    const asked = Math.max(...levels);
    if (asked > most) {
      throw new InputError(
        `The artifact is calibrated up to level ${most}; ${asked} was asked for. ` +
          "Calibrate it for that level too, or pass calibrated=False.",
      );
    }
  }

  /** Ends and their Monte-Carlo errors at one level: calibrated, and adapted to what a state learnt. */
  #ends(quantiles, level, adapted, state) {
    const [lower, upper] = quantiles.ends(level);
    const errors = quantiles.errors(level);
    const factors = adapted ? this.#factors(level, state) : null;
    if (!factors) return { lower, upper, errors };
    const [low, high] = stretch(quantiles.median(), lower, upper, factors);
    const stretched = errors.map((error) => error.map((value, k) => factors[k % factors.length] && factors[k % factors.length] * value));
    return { lower: low, upper: high, errors: stretched };
  }

  #factors(level, state) {
    const { calibration } = this.card;
    const fixed = calibration && factorsAt(calibration, level);
    const learnt = state && online.factors(state, level).map(Math.fround);
    if (!fixed || !learnt) return fixed || learnt;
    return fixed.map((factor, k) => Math.fround(factor * learnt[k]));
  }

  /** The latest prediction at the levels of the state, before it was adapted: what is needed to score it later. */
  #forecast(levels) {
    const { quantiles, rows } = this.#latest;
    const byRow = (values) => {
      const width = values.length / rows;
      return Array.from({ length: rows }, (_, row) => Array.from(values.subarray(row * width, (row + 1) * width)));
    };
    const ends = levels.map((level) => this.#ends(quantiles, level, true, null));
    return {
      median: byRow(quantiles.median()),
      lower: ends.map(({ lower }) => byRow(lower)),
      upper: ends.map(({ upper }) => byRow(upper)),
      known: 0,
    };
  }

  #fresh() {
    checkCanBeCalibrated(this.card);
    const { calibration, levels, outputs } = this.card;
    return online.initial(calibration?.levels ?? [...new Set(levels)].sort((a, b) => a - b), outputs[0].shape[1]);
  }

  /** What a state belongs to: the posterior, and the calibration that its scores are taken against. */
  #identity() {
    return sha256(`${this.card.posterior_sha256} ${this.#calibrationText}`);
  }
}

function answer(samples, ends, { levels, single }, draws, seed) {
  const dims = samples.dims.slice(1);
  const { mean, std } = moments(samples.data, count(dims));
  const ofLevels = single ? dims : [levels.length, ...dims];
  const joined = (parts) => {
    const data = new Float32Array(parts.length * count(dims));
    parts.forEach((part, k) => data.set(part, k * part.length));
    return data;
  };
  const errors = [0, 1].flatMap((side) => ends.map((end) => end.errors[side]));
  return {
    mean: { data: mean, dims },
    std: { data: std, dims },
    lower: { data: joined(ends.map((end) => end.lower)), dims: ofLevels },
    upper: { data: joined(ends.map((end) => end.upper)), dims: ofLevels },
    mcError: { data: joined(errors), dims: [2, ...ofLevels] },
    samples,
    level: single ? levels[0] : levels,
    draws,
    seed,
  };
}
