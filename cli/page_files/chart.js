/* The chart: the last rows of the series and the fan of the forecast, drawn by uPlot. */
"use strict";

const colour = (name, alpha) => {
  const value = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return alpha === undefined ? value : `rgba(${value}, ${alpha})`;
};

/**
 * Draw it anew into an element. `past` are the values up to the window's end, `future` what followed, as far as it is
 * known; `mean` [steps], `lower`, `upper` [levels][steps], `paths` [draws][steps]; `levels` ascend, `chosen` is one of
 * them. `place(offset)` names a row by its offset from the window's end, `number` prints a value, `seen(offset)` is told
 * which row the pointer is at, or null.
 */
function drawChart(element, { past, future, mean, lower, upper, levels, chosen, paths, place, number, seen }) {
  const before = past.length;
  const steps = mean.length;
  const blank = (length) => new Array(length).fill(null);
  const ahead = (values) => [...blank(before - 1), past[before - 1], ...values]; // a fan opens at the last known value
  const data = [Array.from({ length: before + steps }, (_, k) => k - before + 1)];
  const series = [{}];
  const bands = [];
  const add = (values, options) => {
    data.push(values);
    series.push({ points: { show: false }, ...options });
  };
  for (let k = levels.length - 1; k >= 0; k--) {
    const strong = levels[k] === chosen;
    const edge = strong ? { stroke: colour("--forecast"), width: 1.25, dash: [4, 3] } : { stroke: "transparent", width: 0 };
    add(ahead(upper[k]), edge);
    add(ahead(lower[k]), edge);
    bands.push({ series: [data.length - 2, data.length - 1], fill: colour("--band", 0.16) });
  }
  for (const path of paths) add(ahead(path), { stroke: colour("--band", 0.4), width: 1 });
  add(ahead(mean), { stroke: colour("--forecast"), width: 2, points: { show: steps < 3, size: 7, fill: colour("--forecast") } });
  add([...past, ...blank(steps)], { stroke: colour("--series"), width: 1.5 });
  if (future.length) {
    const known = [...blank(before - 1), past[before - 1], ...future, ...blank(steps - future.length)];
    add(known, { stroke: colour("--truth"), width: 2, points: { show: true, size: 6, fill: colour("--truth") } });
  }
  const axis = { stroke: colour("--quiet"), font: "12px system-ui, sans-serif", ticks: { show: false } };
  const grid = { stroke: colour("--line"), width: 1 };
  const options = {
    width: element.clientWidth,
    height: element.clientHeight,
    padding: [12, 36, 0, 0],
    legend: { show: false },
    cursor: { y: false, drag: { setScale: false }, points: { show: false } },
    scales: { x: { time: false } },
    series,
    bands,
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 30,
        space: 110,
        incrs: [1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000],
        values: (_, offsets) => offsets.map(place),
      },
      {
        ...axis,
        grid,
        size: (_, labels) => 12 + 7.5 * Math.max(0, ...(labels ?? []).map(({ length }) => length)),
        values: (_, values) => values.map((value) => value.toLocaleString("en")),
      },
    ],
    hooks: {
      setCursor: [({ cursor }) => seen(cursor.idx === null || cursor.left < 0 ? null : cursor.idx - before + 1)],
    },
  };
  element.replaceChildren();
  new uPlot(options, data, element);
}
