/** What a program in TypeScript may write: compiled in the tests, never run. */

import * as ort from "onnxruntime-web";
import { ArtifactError, InputError, load, loadInWorker, type Intervals, type Model, type Values } from "murho";

const model: Model = await load("model.onnx", { backend: ort });
const other = await load(new Uint8Array(0), { backend: "onnxruntime-node" });
const worker = await loadInWorker(new URL("https://example.org/model.onnx"), { backend: "./ort.wasm.bundle.min.mjs" });

const answer: Intervals = await model.predict([[[1], [2]]], { draws: 256, level: [0.5, 0.9], seed: 1n, noise: false });
const lower: Values = answer.lower;
const sum: number = lower.data[0] + answer.samples.dims[0];
await other.predict({ data: new Float32Array(6), dims: [1, 6, 1] }, { draws: [1, 2], level: 0.9, seed: 3 });
await worker.predict({ numbers: [[1, 2]], words: { data: new BigInt64Array(2), dims: [1, 2] } }, { calibrated: false });
await worker.predict([[1]], { onProgress: (done, of) => done / of, signal: new AbortController().signal, chunk: 32 });
model.observe([sum, NaN]);
await worker.observe(Float64Array.of(1));
await model.loadState(await worker.saveState());
const seed: bigint = model.card.seed;
const factors: number[][] | undefined = model.card.calibration?.factors;
console.log(seed, factors, new InputError("") instanceof Error, new ArtifactError("").message);
await model.release();

// @ts-expect-error draws are a number or names
await model.predict([[1]], { draws: "many" });
// @ts-expect-error a worker cannot be given a module
await loadInWorker("model.onnx", { backend: ort });
// @ts-expect-error no such statistic
console.log(answer.median);
// @ts-expect-error no such option
await model.predict([[1]], { levels: 0.9 });
