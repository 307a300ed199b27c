/** What the conformance runners share: the folder's cases through ONNX Runtime alone and through murho, in any host. */

import { load } from "../murho.js";

const CALLS = 50;
const STATISTICS = ["samples", "mean", "std", "lower", "upper"];

/**
 * The report of a host.
 * @param {{host: string, version: string, ort: object, read: (name: string) => Promise<Uint8Array>, timed?: Uint8Array}}
 *   about `read` gives the bytes of a file of the folder; `timed` is an artifact whose calls are timed
 */
export async function report({ host, version, ort, read, timed }) {
  const wanted = JSON.parse(new TextDecoder().decode(await read("conformance.json")));
  const exact = await wordsExact(ort, await read("generator.onnx"), wanted.generator);
  const cases = [];
  for (const one of wanted.cases) {
    const bytes = await read(`${one.artifact}.onnx`);
    cases.push(checked(one, [await alone(ort, bytes, one), await predicted(ort, bytes, one)]));
  }
  const found = { host, version, words_exact: exact, cases, passed: exact && cases.every(({ passed }) => passed) };
  if (timed) found.latency_ms = await latency(ort, timed, wanted.cases.find(({ name }) => name === "lstm"));
  return found;
}

async function wordsExact(ort, bytes, { draws, seed, shape, words }) {
  const session = await ort.InferenceSession.create(bytes);
  const found = (await session.run({ draws: integers(ort, draws), seed: scalar(ort, seed) })).words;
  return (
    String(found.dims) === String(shape) &&
    found.data.length === words.length &&
    words.every((word, k) => found.data[k] === BigInt(word))
  );
}

/** The artifact's own outputs, from one call of ONNX Runtime. */
async function alone(ort, bytes, one) {
  const session = await ort.InferenceSession.create(bytes, { logSeverityLevel: 3 });
  const float32 = (data, dims) => new ort.Tensor("float32", Float32Array.from(data), dims);
  const feeds = {
    draws: integers(ort, one.draws),
    seed: scalar(ort, one.seed),
    levels: float32(one.levels, [one.levels.length]),
  };
  for (const [name, { data, shape }] of Object.entries(one.inputs)) feeds[name] = float32(data, shape);
  if (one.noise !== null) feeds.noise = float32([one.noise], []);
  return session.run(feeds);
}

/** murho's answer, in chunks; `levels` are those asked for, since it refuses what lies beyond a calibration. */
async function predicted(ort, bytes, one) {
  const model = await load(bytes, { backend: ort });
  const noise = one.noise !== 0;
  const most = noise ? (model.card.calibration?.levels.at(-1) ?? 1) : 1;
  const level = one.levels.filter((value) => value <= most);
  const { draws } = one;
  const answer = await model.predict(inputs(one), { draws, level, seed: BigInt(one.seed), noise, chunk: 32 });
  return { ...answer, levels: level };
}

/** The largest differences of all answers from what is expected, and whether all are within the limits. */
function checked(one, answers) {
  const largest = {};
  let passed = true;
  for (const statistic of STATISTICS) {
    largest[statistic] = 0;
    for (const answer of answers) {
      const found = answer[statistic];
      const { data, shape, limit } = wantedAt(answer.levels ?? one.levels, one, statistic);
      const off = data.map((value, k) => Math.abs(found.data[k] - value));
      passed &&= String(found.dims) === String(shape) && found.data.length === data.length;
      passed &&= off.every((difference) => difference <= limit); // NaN is not
      largest[statistic] = Math.max(largest[statistic], ...off);
    }
  }
  return { name: one.name, largest, passed };
}

/** What is expected of a statistic, at some of the case's levels. */
function wantedAt(levels, one, statistic) {
  const wanted = one.expected[statistic];
  if (statistic !== "lower" && statistic !== "upper") return wanted;
  const width = wanted.data.length / one.levels.length;
  const at = (k) => wanted.data.slice(k * width, (k + 1) * width);
  const data = levels.flatMap((level) => at(one.levels.indexOf(level)));
  return { ...wanted, data, shape: [levels.length, ...wanted.shape.slice(1)] };
}

/** Median milliseconds of a warm `predict` for one row, every call with a seed of its own. */
async function latency(ort, bytes, one) {
  const model = await load(bytes, { backend: ort });
  const found = {};
  for (const draws of [256, 1000]) {
    const times = [];
    let total = 0;
    for (let seed = 0; seed < CALLS; seed++) {
      const start = performance.now();
      total += (await model.predict(inputs(one), { draws, level: one.levels, seed })).mean.data[0];
      if (seed >= CALLS / 5) times.push(performance.now() - start);
    }
    if (!Number.isFinite(total)) throw new Error(`The answers of ${draws} draws are not finite.`);
    found[draws] = times.sort((a, b) => a - b)[times.length >> 1];
  }
  return found;
}

function inputs(one) {
  return Object.fromEntries(Object.entries(one.inputs).map(([name, { data, shape }]) => [name, { data, dims: shape }]));
}

function integers(ort, values) {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [values.length]);
}

function scalar(ort, value) {
  return new ort.Tensor("int64", BigInt64Array.of(BigInt(value)), []);
}
