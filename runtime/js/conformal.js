/** Calibration: how far the two sides of an interval are stretched from its median, as the card says. */

const { fround } = Math;

/** Factors [outputs] of a calibration at any level: interpolated between its own in float32, constant beyond them. */
export function factorsAt({ levels, factors }, level) {
  const slots = levels.map(fround);
  const at = fround(level);
  const below = Math.max(slots.filter((slot) => slot <= at).length - 1, 0);
  const above = Math.min(below + 1, slots.length - 1);
  const gap = fround(slots[above] - slots[below]);
  const share = gap > 0 ? Math.min(Math.max(fround(fround(at - slots[below]) / gap), 0), 1) : 0;
  return factors[below].map((factor, output) => {
    const [low, high] = [fround(factor), fround(factors[above][output])];
    return fround(low + fround(share * fround(high - low)));
  });
}

/** Ends moved away from the medians [rows · outputs] by factors [outputs], in float32. */
export function stretch(median, lower, upper, factors) {
  const less = factors.map((factor) => fround(1 - factor));
  const by = (k, length) => fround(less[k % less.length] * fround(length));
  return [
    lower.map((end, k) => end + by(k, median[k] - end)),
    upper.map((end, k) => end - by(k, end - median[k])),
  ];
}

/** The factor at which an interval, stretched from its median, would just have reached the truth; NaN if unknown. */
export function score(median, lower, upper, truth) {
  const off = truth - median;
  if (off === 0) return 0;
  return Math.abs(off) / (off < 0 ? median - lower : upper - median);
}
