/** Prediction intervals from murho's ONNX artifacts, in browsers and Node.js. */

/** ONNX Runtime: onnxruntime-web or onnxruntime-node. */
export interface Runtime {
  InferenceSession: unknown;
  Tensor: unknown;
}

/** Bytes, a File, a URL, or in Node.js a path. */
export type Source = string | URL | Uint8Array | ArrayBuffer | Blob;

type Numbers =
  | Float32Array
  | Float64Array
  | Int8Array
  | Int16Array
  | Int32Array
  | Uint8Array
  | Uint8ClampedArray
  | Uint16Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | readonly number[]
  | readonly bigint[]
  | readonly boolean[];
export type Nested = Numbers | readonly Nested[];
/** An array: nested, or flat (the last axis fastest) with its sizes. */
export type ArrayLike = Nested | { data: Numbers; dims: readonly number[] };

/** An array of an answer: flat, the last axis fastest. */
export interface Values {
  data: Float32Array;
  dims: number[];
}

/** Shape, type and meaning of an input or output; null marks an axis of any length. */
export interface ArrayCard {
  name: string;
  /** Name of each axis, the batch first, for example ["batch", "time", "feature"]; no batch where all rows share it. */
  axes: string[];
  shape: (number | null)[];
  dtype: "float32" | "int64" | "bool";
  /** Names along the last axis, or empty. */
  names: string[];
  unit: string;
  /** Of tokens: how many there are; each is from 0 to limit - 1. Or one for each column along the last axis, of categories. */
  limit: number | null | (number | null)[];
}

/** What the artifact says of itself, as the file has it; further fields are described with Python's `Card`. */
export interface Card {
  name: string;
  created: string;
  task: string;
  inputs: ArrayCard[];
  outputs: ArrayCard[];
  states: ArrayCard[];
  posterior_sha256: string;
  /** Draws to take where a caller names none. */
  draws: number;
  levels: number[];
  seed: bigint;
  noise: { distribution: "gaussian" | "student-t"; degrees: number; scale: number[] } | null;
  /** Steps that the artifact goes by feeding each draw's prediction back; 1 for none. */
  horizon: number;
  calibration: {
    levels: number[];
    /** [levels][outputs]. */
    factors: number[][];
    rows: number;
    half_life: number | null;
    data_sha256: string;
  } | null;
  training: Record<string, unknown>;
  verification: Record<string, unknown>;
  schema: number;
  /** How values become those that the network sees; "returns" and "differences" are relative to a window's last row. */
  scaling: {
    input_mean: number[];
    input_scale: number[];
    output_mean: number[];
    output_scale: number[];
    values: "levels" | "differences" | "returns";
  };
  [field: string]: unknown;
}

export interface PredictOptions {
  /** How many draws (0 … draws - 1), or the names of the draws, different integers in 0 … 2^32 - 1. By default the card's. */
  draws?: number | readonly number[] | Uint32Array | BigInt64Array;
  /** Nominal coverage of the central interval, or several. By default the card's. */
  level?: number | readonly number[];
  /** An integer of 64 bits: a BigInt beyond ±(2^53 - 1). By default the card's. */
  seed?: number | bigint;
  /** With observation noise, where the artifact has any; false gives the interval of the mean. */
  noise?: boolean;
  /** Calibrated, and adapted to what was observed. */
  calibrated?: boolean;
  /** Draws evaluated at once, a multiple of 16: another time, the same answer. */
  chunk?: number;
  /** Called after each chunk of draws. */
  onProgress?: (done: number, of: number) => void;
  /** Stops between chunks, rejecting with the signal's reason. */
  signal?: AbortSignal;
}

/** Prediction of a batch of B rows, in raw units. */
export interface Intervals {
  /** [B, …] over the draws. */
  mean: Values;
  /** [B, …] over the draws, with S - 1. */
  std: Values;
  /** [B, …], or [K, B, …] for K levels given as an array. */
  lower: Values;
  upper: Values;
  /**
   * Monte-Carlo standard errors of `lower` and of `upper`, [2, …]: how far off other draws, as many, would put them.
   * Infinite where less than one draw lies beyond an end on average.
   */
  mcError: Values;
  /** [S, B, …], one prediction per draw. */
  samples: Values;
  level: number | number[];
  /** [S], the draws' names. */
  draws: Uint32Array;
  seed: bigint;
}

/** What `load` and `loadInWorker` return. */
export interface Predictor {
  /** What the artifact says of itself. */
  readonly card: Card;

  /**
   * Intervals of a batch. `x` is [B, …] in raw units, of a network with several inputs an object by their names, or an
   * array of as many.
   *
   * Rejects with InputError for a wrong shape, type or value, for an option that there is none, and with the row's number
   * where the network has no finite answer: for a window that ends in 0 where the artifact reads returns, for example.
   */
  predict(x: ArrayLike | Record<string, ArrayLike> | readonly ArrayLike[], options?: PredictOptions): Promise<Intervals>;

  /** What `observe` has learnt, as the JSON that Python's `load_state` reads too. */
  saveState(): Promise<string>;

  /**
   * Go on from a state that `saveState`, or Python's `save_state`, wrote.
   *
   * Rejects with ArtifactError for a damaged one, and for the state of another artifact or calibration.
   */
  loadState(text: string): Promise<void>;

  /** Free the memory; the model is of no use afterwards. */
  release(): Promise<void>;
}

export interface Model extends Predictor {
  /**
   * Tell the truth about the latest prediction, so that the next interval is as wide as it must be.
   *
   * Of a forecast, `y` [B] holds the next value of each of the B series that were predicted: it settles the first step
   * of the latest prediction, the second one of the prediction before, and so on, so predict before each call. Of a
   * regression, `y` [B, O] is the truth of the rows that were predicted last. NaN stands for what nobody knows.
   * Predictions with noise: false or calibrated: false do not count.
   *
   * Throws InputError where nothing was predicted yet, or `y` has another shape.
   */
  observe(y: ArrayLike): void;
}

export interface WorkerModel extends Predictor {
  /** As `Model.observe`; rejects where that throws. */
  observe(y: ArrayLike): Promise<void>;
}

/**
 * Open an artifact.
 *
 * `backend` is ONNX Runtime, or the name or address of its module; by default onnxruntime-node in Node.js, and
 * "onnxruntime-web/wasm" in browsers, which a bundler or an import map resolves.
 *
 * Rejects with ArtifactError for a file that is missing, damaged, foreign or too new.
 */
export function load(source: Source, options?: { backend?: Runtime | string }): Promise<Model>;

/** As `load`, but evaluated in a Web Worker. `backend` must be an address, since import maps do not reach workers. */
export function loadInWorker(source: Source, options?: { backend?: string | URL }): Promise<WorkerModel>;

/** Root of murho's errors. */
export class MurhoError extends Error {}

/** The file is not a murho artifact, is damaged, or needs a newer murho. */
export class ArtifactError extends MurhoError {}

/** An argument has the wrong shape, type or value. */
export class InputError extends MurhoError {}
