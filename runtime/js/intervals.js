/** What a set of samples says: moments in float64, quantiles with linear interpolation, each as in Python's runtime. */

const { fround } = Math;
const FEWEST_BEYOND = 1; // draws beyond an end, on average, from which on its error is estimated

/** The order of samples [S, …]: every column sorted once, for every level. */
export class Quantiles {
  /**
   * @param {Float32Array} samples [S, columns]
   * @param {number} columns
   */
  constructor(samples, columns) {
    this.columns = columns;
    this.count = samples.length / columns;
    this.ordered = new Float32Array(samples.length); // [columns, S]
    for (let column = 0; column < columns; column++) {
      const part = this.ordered.subarray(column * this.count, (column + 1) * this.count);
      for (let draw = 0; draw < this.count; draw++) part[draw] = samples[draw * columns + column];
      part.sort();
    }
  }

  /** Quantile of every column at a share of 0 … 1, with linear interpolation in float32. */
  at(share) {
    const last = this.count - 1;
    const position = share * last;
    const below = Math.floor(position);
    const above = Math.min(below + 1, last);
    const part = fround(position - below);
    const found = new Float32Array(this.columns);
    for (let column = 0; column < this.columns; column++) {
      const low = this.ordered[column * this.count + below];
      const high = this.ordered[column * this.count + above];
      found[column] = low + fround(part * fround(high - low));
    }
    return found;
  }

  median() {
    return this.at(0.5);
  }

  /** Lower and upper ends of the central interval: the quantiles (1 ∓ level) / 2. */
  ends(level) {
    return [this.at((1 - level) / 2), this.at((1 + level) / 2)];
  }

  /** Monte-Carlo standard errors of both ends: half the distance between quantiles one error of the rank away. */
  errors(level) {
    const p = (1 - level) / 2;
    const spread = Math.sqrt((p * (1 - p)) / this.count);
    const outer = Math.max(p - spread, 0);
    const inner = p + spread;
    const share = fround(spread / (inner - outer)); // 1/2, more where the outer one is the smallest draw
    const unknown = this.count * p < FEWEST_BEYOND;
    const agree = (column) => this.ordered[column * this.count] === this.ordered[(column + 1) * this.count - 1];
    const error = (from, to) => {
      const [a, b] = [this.at(from), this.at(to)];
      return a.map((value, column) => {
        if (unknown) return agree(column) ? 0 : Infinity; // draws that all agree leave nothing to be unsure of
        return fround(fround(b[column] - value) * share);
      });
    };
    return [error(outer, inner), error(1 - inner, 1 - outer)];
  }
}

/** Mean and standard deviation (with S - 1) of every column of samples [S, columns], summed in float64. */
export function moments(samples, columns) {
  const draws = samples.length / columns;
  const mean = new Float64Array(columns);
  for (let k = 0; k < samples.length; k++) mean[k % columns] += samples[k];
  for (let column = 0; column < columns; column++) mean[column] /= draws;
  const squares = new Float64Array(columns);
  for (let k = 0; k < samples.length; k++) squares[k % columns] += (samples[k] - mean[k % columns]) ** 2;
  const std = squares.map((square) => Math.sqrt(square / (draws - 1)));
  return { mean: Float32Array.from(mean), std: Float32Array.from(std) };
}
