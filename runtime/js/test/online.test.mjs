/** The arithmetic of online calibration against docs/online.json. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import * as online from "../online.js";

const { cases } = JSON.parse(await readFile(new URL("../../../docs/online.json", import.meta.url)));

for (const { level, scores, factors } of cases) {
  test(`the documentation's vectors at level ${level}`, () => {
    let state = online.initial([level], 1);
    scores.forEach((score, k) => {
      state = online.updated(state, [[[score]]]);
      const [factor] = online.factors(state, level);
      assert.ok(Math.abs(factor - factors[k]) <= 1e-12 * factors[k], `${factor} after ${k + 1} scores, not ${factors[k]}`);
    });
    assert.equal(state.observed, scores.length);
  });
}

test("what is not known changes nothing", () => {
  const before = online.updated(online.initial([0.5, 0.9], 2), [[[2, 0.5]], [[1, 3]]]);
  const after = online.updated(before, [[[NaN, NaN]], [[NaN, NaN]]]);
  assert.deepEqual(after, { ...before, observed: 2 });
});

test("between levels the logarithm is interpolated, beyond them it is constant", () => {
  let state = online.initial([0.5, 0.9], 1);
  for (const score of [3, 5, 0.1, 7]) state = online.updated(state, [[[score]], [[2 * score]]]);
  const [low, middle, high] = [0.5, 0.7, 0.9].map((level) => online.factors(state, level)[0]);
  assert.notEqual(low, high);
  assert.ok(Math.abs(middle - Math.sqrt(low * high)) < 1e-12);
  assert.equal(online.factors(state, 0.2)[0], low);
  assert.equal(online.factors(state, 0.99)[0], high);
});
