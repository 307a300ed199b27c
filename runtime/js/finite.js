/** What the network cannot answer in float32: rows whose scaled values, samples or intervals are not finite. */

import { InputError } from "./errors.js";

const { fround } = Math;
const LARGEST = 3.4028234663852886e38;
const TINY = 1.1754943508222875e-38; // nearer to 0 float32 loses digits

/**
 * Refuse rows of the first input {data, dims} whose values in the network's units, computed as in the artifact, float32
 * cannot hold: windows that end in 0 where they are read relative to their last row, and what is far too large.
 */
export function checkScaled({ scaling, inputs: [{ name, dtype }] }, { data, dims }) {
  if (!scaling || dtype !== "float32") return;
  const { input_mean: mean, input_scale: scale, values } = scaling;
  const width = dims.at(-1);
  const row = data.length / dims[0];
  const place = (k) => [Math.floor(k / row), ...placeIn(k % row, dims.slice(1))];
  const last = (k) => data[(Math.floor(k / row) + 1) * row - width + (k % width)];
  if (values === "returns") {
    for (let b = 1; b <= dims[0]; b++) {
      for (let k = b * row - width; k < b * row; k++) {
        if (Math.abs(data[k]) >= TINY) continue;
        throw new InputError(
          `Row ${b - 1} of ${name} has a last value of ${general(data[k])}, of which there are no returns: this ` +
            "artifact reads windows relative to their last row. Fill or drop such rows first.",
        );
      }
    }
  }
  for (let k = 0; k < data.length; k++) {
    let seen = data[k];
    if (values !== "levels") seen = fround(seen - last(k));
    if (values === "returns") seen = fround(seen / last(k));
    const one = (parts) => fround(parts[parts.length === 1 ? 0 : k % width]);
    if (Number.isFinite(fround(fround(seen - one(mean)) / one(scale)))) continue;
    throw new InputError(
      `Row ${place(k)[0]} of ${name} is beyond float32 once it is scaled for the network, at ${name}[${place(k).join(", ")}] ` +
        `= ${general(data[k])}. Such values are far from all that it was trained on: fill or drop such rows first.`,
    );
  }
}

/** Refuse samples {data, dims} [S, B, …] that are not finite although the input is. */
export function checkAnswer({ outputs: [{ name }] }, { data, dims }) {
  if (data.every(Number.isFinite)) return;
  const width = data.length / dims[0] / dims[1];
  let first = dims[1];
  data.forEach((value, k) => {
    if (!Number.isFinite(value)) first = Math.min(first, Math.floor(k / width) % dims[1]);
  });
  throw new InputError(
    `The network's answer ${name} for row ${first} is not finite, although the input is: its values are too large for ` +
      "float32 arithmetic, or the network's weights are. Compare them with the data that the network was trained on.",
  );
}

/** Refuse spreads and ends [B, …] of `rows` rows that float32 cannot hold, though it holds each sample. */
export function checkEnds(rows, ...parts) {
  for (const part of parts) {
    const at = part.findIndex((value) => !Number.isFinite(value));
    if (at < 0) continue;
    throw new InputError(
      `The interval of row ${Math.floor((at * rows) / part.length)} is beyond float32's largest number, ` +
        `${general(LARGEST, 3)}, though its samples are not. Predict in a larger unit.`,
    );
  }
}

/** Indices of the element k of an array with these sizes. */
export function placeIn(k, dims) {
  return dims.map((size, axis) => Math.floor(k / dims.slice(axis + 1).reduce((product, one) => product * one, 1)) % size);
}

/** A number in so many digits, as C's and Python's %g print it. */
export function general(value, digits = 6) {
  if (Object.is(value, -0)) return "-0";
  const [mantissa, power] = value.toExponential(digits - 1).split("e").map(Number);
  if (power >= -4 && power < digits) return String(Number(value.toPrecision(digits)));
  return `${mantissa}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
