/* The page: what is asked for, what is shown. */
"use strict";

const DRAWS = [16, 32, 64, 128, 256, 512, 1000, 2000, 5000, 10000];
const FAN = [0.5, 0.8, 0.95];
const PATHS = 24;
const HISTORY = [30, 60, 120, 250, 1000];

const at = (id) => document.getElementById(id);
const state = {
  forecaster: null,
  card: null,
  table: null, // {name, columns, dates}, see csv.js
  rows: [], // [row][column] of what the network reads
  values: [], // [row] of what it forecasts
  dates: null,
  target: null,
  seed: 0n,
  asked: null,
  answer: null,
  failed: false, // whether the alert says why there is no forecast for what was asked last
};

/** What tests and a curious reader find in the console. */
window.murhoPage = state;

async function start() {
  if (!("DecompressionStream" in window)) return stop("This browser is too old for this page: it needs one of 2023 or later.");
  try {
    state.forecaster = await Forecaster.start(murhoEngine);
  } catch (error) {
    const served = location.protocol === "file:" ? " Serve the folder and open it from there: python -m http.server" : "";
    return stop(`The forecast cannot be computed here: ${error.message}.${served}`);
  }
  const { artifact, series } = murhoData;
  const { columns, dates, rows, reads, window: read, ...rest } = series;
  const values = columns.map((name, k) => [name, rows.map((row) => row[k])]);
  try {
    const card = Object.assign(await state.forecaster.load(artifact), { reads, window: read, target: rest.target });
    await use(fitting(card, { ...rest, columns: new Map(values), dates: dates?.map(Date.parse) ?? null }));
  } catch (error) {
    return stop(error.message);
  }
  listen();
}

/** What the page needs of a network and a table, where the two fit. Throws an Error in words where not. */
function fitting(card, table, target = table.target) {
  const { inputs, outputs, task } = card;
  const series = inputs.length === 1 && inputs[0].shape.length === 3 && outputs[0].shape.length === 2;
  if (!series || task === "classification") {
    throw new Error(`${card.name} does not forecast a series: the page needs one input [batch, time, feature].`);
  }
  const window = inputs[0].shape[1] ?? card.window ?? card.training.window;
  if (!window) throw new Error(`${card.name} does not say how many rows it reads. Export it with its training.`);
  const columns = columnsOf(card, table, target);
  const shown = targetOf(card, table, target, columns);
  const { rows: all, dates, repairs } = rowsOf(table, [...new Set([...columns, shown])]);
  if (all.length < window) {
    throw new Error(`The network reads windows of ${window} rows, but ${table.name} has ${count(all.length)}.`);
  }
  const place = columns.includes(shown) ? columns.indexOf(shown) : columns.length;
  const [rows, values] = [all.map((row) => row.slice(0, columns.length)), all.map((row) => row[place])];
  return { card, table, window, rows, values, dates, columns, target: shown, repairs: [...(table.repairs ?? []), ...repairs] };
}

/** Whether a network may be shown any column: it reads one, and that is what it forecasts. */
const readsAny = ({ inputs: [{ shape }], reads, target }) => shape[2] === 1 && (!reads || reads[0] === target);

/** What is forecast: the target, where the table has it, else the first column that is read. */
function targetOf(card, table, target, columns) {
  if (readsAny(card) || card.scaling.values !== "levels") return columns[0];
  const own = card.target ?? card.training.target;
  return [target, own].find((name) => name !== undefined && table.columns.has(name)) ?? columns[0];
}

/** The columns that a network reads. One that reads and forecasts a single column may read any. */
function columnsOf(card, table, target) {
  const [{ shape, names }] = card.inputs;
  if (readsAny(card)) return [firstOf(table, [target, names[0], card.reads?.[0]])];
  const columns = card.reads ?? (names.length ? [...names] : [...table.columns.keys()]);
  if (columns.length !== shape[2]) {
    throw new Error(`The network reads ${shape[2]} columns, but ${table.name} has ${columns.length}.`);
  }
  return columns;
}

const firstOf = (table, names) => names.find((name) => table.columns.has(name)) ?? table.columns.keys().next().value;

/** Show forecasts of what fits. */
async function use(parts) {
  const fresh = parts.card !== state.card;
  if (fresh) await state.forecaster.keep();
  Object.assign(state, parts);
  const { card, rows, window } = state;
  setRange("origin", window, rows.length, rows.length);
  if (fresh) {
    const most = card.calibration ? Math.floor(100 * card.calibration.levels.at(-1) + 1e-9) : 99;
    setRange("level", Math.min(50, most), most, Math.min(Math.round(100 * card.levels.at(-1)), most));
    const enough = DRAWS.findIndex((draws) => draws >= card.draws);
    setRange("draws", 0, DRAWS.length - 1, enough < 0 ? DRAWS.length - 1 : enough);
    state.seed = card.seed;
  }
  describe();
  await refresh();
  if (fresh) await refresh(); // the first call of a model pays for its compilation: show what the next ones take
}

/** Ask for the forecast that the controls describe, and show it unless they have moved on. */
async function refresh() {
  const { card, rows, window } = state;
  const end = Number(at("origin").value);
  const chosen = Number(at("level").value) / 100;
  const most = card.calibration?.levels.at(-1) ?? 1;
  const levels = [...new Set([...FAN.filter((level) => level <= most), chosen])].sort((a, b) => a - b);
  const asked = { end, chosen, levels, draws: DRAWS[at("draws").value], seed: state.seed };
  state.asked = asked;
  label(asked);
  document.documentElement.dataset.state = "busy";
  const read = rows.slice(end - window, end);
  const x = { data: Float32Array.from(read.flat()), dims: [1, window, read[0].length] };
  let answer;
  try {
    answer = await state.forecaster.predict({ x, draws: asked.draws, level: levels, seed: asked.seed, paths: PATHS });
  } catch (error) {
    if (state.asked !== asked) return;
    state.failed = true;
    document.documentElement.dataset.state = "error";
    return complain(error.message);
  }
  if (!answer || state.asked !== asked) return;
  if (state.failed) at("alert").hidden = true;
  state.failed = false;
  state.answer = { ...asked, ...answer };
  show();
  document.documentElement.dataset.state = "ready";
}

function show() {
  const { answer, target, values } = state;
  const { end, mean, lower, upper, levels, chosen, draws, milliseconds } = answer;
  const k = levels.indexOf(chosen);
  const number = numbers(upper[k].at(-1) - lower[k].at(-1));
  const future = values.slice(end, end + mean.length);
  sentence(at("summary"), answer, k, number);
  const inside = future.filter((value, step) => lower[k][step] <= value && value <= upper[k][step]).length;
  at("truth").textContent = !future.length
    ? ""
    : future.length === 1
      ? `It came to ${number(future[0])}, ${inside ? "inside" : "outside"} the interval.`
      : `Of the ${future.length} values that followed, ${inside} lie inside the ${percent(chosen)} intervals.`;
  at("speed").textContent =
    `${milliseconds.toFixed(milliseconds < 10 ? 1 : 0)} ms for ${count(draws)} draws, ` +
    `${count(Number(((1000 * draws) / milliseconds).toPrecision(2)))} draws per second.`;
  draw(number, future);
  fillTable(number, future);
  at("chart").setAttribute("aria-label", `Chart of ${target} and its forecast. ${at("summary").textContent}`);
}

/** "95 % interval for Close, 7 steps after 1 Mar 2013: **190.1 to 213.9**, mean 202.1." */
function sentence(element, { mean, lower, upper, chosen }, k, number) {
  const last = mean.length - 1;
  const where = state.answer.end + last < state.rows.length ? (state.dates ? " on" : " at") : ",";
  const unit = state.card.outputs[0].unit ? ` ${state.card.outputs[0].unit}` : "";
  const range = document.createElement("strong");
  range.textContent = `${number(lower[k][last])} to ${number(upper[k][last])}${unit}`;
  element.replaceChildren(
    `${percent(chosen)} interval for ${state.target}${where} ${place(last + 1)}: `,
    range,
    `, mean ${number(mean[last])}.`,
  );
}

/** A row by its offset from the window's end: its date where it is known, else how many steps after the last one. */
function place(offset) {
  const row = state.answer.end - 1 + offset;
  if (row >= 0 && row < state.rows.length) return placeOf(row);
  return `${steps(row - state.rows.length + 1)} after ${placeOf(state.rows.length - 1)}`;
}

function placeOf(row) {
  return state.dates ? state.named(state.dates[row]) : `row ${count(row + 1)}`;
}

function draw(number, future) {
  const { answer, rows, values } = state;
  const { end, levels, chosen, mean, lower, upper } = answer;
  const shown = at("history").value === "all" ? end : Math.min(Number(at("history").value), end);
  const past = values.slice(end - shown, end);
  const paths = at("paths").checked ? answer.paths : [];
  const tick = (offset) => (end - 1 + offset < rows.length ? placeOf(end - 1 + offset) : `+${offset}`);
  const seen = (offset) => (at("readout").textContent = offset === null ? "" : readout(offset, past, number));
  drawChart(at("chart"), { past, future, mean, lower, upper, levels, chosen, paths, place: tick, number, seen });
  keys(levels, paths.length, future.length);
}

function readout(offset, past, number) {
  const { answer, values } = state;
  const { levels, chosen, mean, lower, upper, end } = answer;
  if (offset <= 0) return `${place(offset)}: ${number(past[past.length - 1 + offset])}`;
  const k = levels.indexOf(chosen);
  const truth = values[end - 1 + offset];
  const came = truth === undefined ? "" : `, came to ${number(truth)}`;
  return `${place(offset)}: ${number(lower[k][offset - 1])} to ${number(upper[k][offset - 1])}, mean ${number(mean[offset - 1])}${came}`;
}

function keys(levels, paths, known) {
  const key = (text, background, thin = false) => {
    const item = document.createElement("span");
    item.className = "key";
    const swatch = document.createElement("span");
    swatch.className = thin ? "swatch thin" : "swatch";
    swatch.style.background = background;
    item.append(swatch, text);
    return item;
  };
  const items = [key(state.target, "var(--series)", true), key("mean forecast", "var(--forecast)", true)];
  // The bands lie on each other, so that an inner one is as dark as all around it together.
  levels.forEach((level, k) => items.push(key(percent(level), `rgba(var(--band), ${1 - 0.84 ** (levels.length - k)})`)));
  if (paths) items.push(key(`${paths} single draws`, "rgba(var(--band), 0.4)", true));
  if (known) items.push(key("what followed", "var(--truth)", true));
  at("legend").replaceChildren(...items);
}

function fillTable(number, future) {
  const { answer, target } = state;
  const { mean, std, lower, upper, levels, draws, seed } = answer;
  const cell = (name, text, scope) => Object.assign(document.createElement(name), { textContent: text, ...(scope && { scope }) });
  const line = (first, others) => {
    const row = document.createElement("tr");
    row.append(cell("th", first, others.head ? "col" : "row"), ...others.map((text) => cell(others.head ? "th" : "td", text, others.head && "col")));
    return row;
  };
  const titles = ["Mean", "Standard deviation", ...levels.flatMap((level) => [`Lower ${percent(level)}`, `Upper ${percent(level)}`])];
  if (future.length) titles.push("What followed");
  at("table-caption").textContent = `${target}, forecast from ${place(0)}, ${count(draws)} draws, seed ${seed}`;
  at("table-head").replaceChildren(line("When", Object.assign(titles, { head: true })));
  at("table-body").replaceChildren(
    ...Array.from(mean, (value, step) => {
      const ends = levels.flatMap((_, k) => [lower[k][step], upper[k][step]]);
      const values = [value, std[step], ...ends, ...(future.length ? [future[step] ?? NaN] : [])];
      return line(place(step + 1), values.map(number));
    }),
  );
}

/** What does not depend on a forecast: titles, the columns to choose from, and the model's card. */
function describe() {
  const { card, table, rows, dates, window, columns, repairs } = state;
  state.named = dates ? moments(dates) : null;
  document.title = `${card.name}: forecast`;
  at("title").textContent = card.name;
  at("subtitle").textContent = `${table.name}, ${count(rows.length)} rows, ${placeOf(0)} to ${placeOf(rows.length - 1)}`;
  const names = [...table.columns.keys()];
  at("column-field").hidden = !readsAny(card) || names.length < 2;
  options("column", names.map((name) => [name, name]), state.target);
  const lengths = HISTORY.filter((length) => length < rows.length).map((length) => [String(length), `the last ${count(length)} rows`]);
  options("history", [...lengths, ["all", "all rows"]], at("history").value || (card.outputs[0].shape[1] === 1 ? "30" : "60"));
  const { calibration, noise, verification } = card;
  const law = noise?.degrees ? `Student-t noise, ${noise.degrees} degrees of freedom` : "Gaussian noise";
  const facts = [
    ["Reads", `${window} rows of ${columns.join(", ")}`],
    ...(repairs.length ? [["Repaired", repairs.join(" ")]] : []),
    ["Forecasts", `${steps(card.outputs[0].shape[1])} ahead${card.horizon > 1 ? ", each draw a whole path" : ""}`],
    ["Intervals", noise ? `${law}, ${noise.scale.length ? "constant" : "its size said by the network"}` : "without observation noise: the weights' doubt alone"],
    ["Calibrated", calibration ? `on ${count(calibration.rows)} rows that training did not see, levels ${calibration.levels.map(percent).join(", ")}` : "no"],
    ["Equal to BLiTZ", verification.exact ? `within ${verification.exact.largest_error.toExponential(1)} at equal noise` : "not proven"],
    ["Exported", `${card.created.slice(0, 10)}, murho ${card.versions.murho ?? ""}`],
    ["Posterior", card.posterior_sha256],
  ];
  at("about").replaceChildren(
    ...facts.flatMap(([term, text]) => [
      Object.assign(document.createElement("dt"), { textContent: term }),
      Object.assign(document.createElement("dd"), { textContent: text }),
    ]),
  );
}

/** The values beside the sliders, for eyes and for screen readers. */
function label({ end, chosen, draws, seed }) {
  const texts = { origin: placeOf(end - 1), level: percent(chosen), draws: count(draws), seed: String(seed) };
  for (const id of ["origin", "level", "draws"]) at(`${id}-value`).textContent = texts[id];
  for (const [id, text] of Object.entries(texts)) at(id).setAttribute("aria-valuetext", text);
  if (document.activeElement !== at("seed-value")) at("seed-value").value = texts.seed;
  if (seed >= 0n && seed <= 99n) at("seed").value = texts.seed;
}

function setRange(id, min, max, value) {
  Object.assign(at(id), { min, max });
  at(id).value = value;
}

function options(id, pairs, chosen) {
  at(id).replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, value === chosen)));
}

function listen() {
  for (const id of ["origin", "level", "draws"]) at(id).addEventListener("input", refresh);
  at("seed").addEventListener("input", () => withSeed(at("seed").value));
  at("seed-value").addEventListener("change", () => withSeed(at("seed-value").value));
  at("controls").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["history", "paths"]) at(id).addEventListener("change", show);
  at("column").addEventListener("change", () => attempt(() => use(fitting(state.card, state.table, at("column").value))));
  at("file").addEventListener("change", () => {
    open([...at("file").files]);
    at("file").value = "";
  });
  at("alert-close").addEventListener("click", () => {
    at("alert").hidden = true;
    at("file").focus();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  new ResizeObserver(() => state.answer && show()).observe(at("chart"));
  let depth = 0;
  const over = (change) => (event) => {
    event.preventDefault();
    depth = change(depth);
    at("drop").hidden = depth <= 0;
  };
  addEventListener("dragenter", over((was) => was + 1));
  addEventListener("dragleave", over((was) => was - 1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    over(() => 0)(event);
    open([...event.dataTransfer.files]);
  });
}

function withSeed(text) {
  if (!/^-?\d{1,19}$/.test(text.trim())) return complain(`A seed is a whole number, not ${text.trim() || "nothing"}.`);
  state.seed = BigInt(text.trim());
  at("alert").hidden = true;
  refresh();
}

/** Open an artifact, a series, or one of each that belong together. What is shown stays where they do not fit. */
async function open(files) {
  at("alert").hidden = true;
  await attempt(async () => {
    const other = files.find(({ name }) => !/\.(onnx|csv)$/i.test(name));
    if (other) throw new Error(`${other.name} is neither an .onnx artifact nor a .csv file.`);
    const [model, series] = [/\.onnx$/i, /\.csv$/i].map((suffix) => files.find(({ name }) => suffix.test(name)));
    const table = series ? readCsv(await series.text(), series.name) : state.table;
    const card = model ? await state.forecaster.load({ file: model }) : state.card;
    await use(fitting(card, table, series ? undefined : state.target));
  });
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    complain(error.message);
  }
}

function complain(text) {
  at("alert-text").textContent = text;
  at("alert").hidden = false;
}

function stop(text) {
  complain(text);
  at("alert-close").hidden = true;
  at("summary").textContent = "";
  document.documentElement.dataset.state = "error";
}

start();
