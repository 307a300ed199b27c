/* Read a CSV file as a series: the columns of numbers, and the dates where there are any, oldest row first. */
"use strict";

const LONGEST_GAP = 5; // missing values in a row that take the last one before; as in murho's Python

/**
 * {name, columns: Map of name to numbers, dates: milliseconds UTC or null, dated: their column's name, repairs} of a CSV
 * file with a header row. Throws an Error in words for a reader. Missing values are NaN.
 */
function readCsv(text, name) {
  if (text.includes("\0") || text.includes("\uFFFD")) throw new Error(`${name} is no UTF-8 text. Save it in that encoding.`);
  const [header, ...rows] = cells(text.replace(/^\uFEFF/, ""));
  if (!header || !rows.length) throw new Error(`${name} holds no table. Give a CSV file with a header row.`);
  const ragged = rows.findIndex((row) => row.length !== header.length);
  if (ragged >= 0) {
    throw new Error(
      `${name} is not a table: row ${ragged + 1} has ${rows[ragged].length} cells, but the header has ${header.length}.`,
    );
  }
  const twice = header.find((title, k) => header.indexOf(title) !== k);
  if (twice !== undefined) throw new Error(`${name} has the column ${twice || "without a name"} twice. Rename or drop one.`);
  const columns = new Map();
  let dates = null;
  let dated = null;
  header.forEach((title, k) => {
    const column = rows.map((row) => row[k].trim());
    if (!dates && holdsDates(column)) {
      dated = title;
      dates = asDates(column);
      const row = dates?.findIndex(Number.isNaN);
      if (!dates || row >= 0) throw new Error(`Column ${title} of ${name} does not hold a date in every row, all written alike. Write them as YYYY-MM-DD.`);
      return;
    }
    const values = column.map((cell) => (MISSING.has(cell.toLowerCase()) ? NaN : Number(cell)));
    if (values.some(Number.isFinite) && values.every((value, row) => Number.isFinite(value) || MISSING.has(column[row].toLowerCase()))) {
      columns.set(title, values);
    }
  });
  if (!columns.size) throw new Error(`${name} has no column of numbers. Its columns are: ${header.join(", ")}.`);
  return inOrder({ name, columns, dates, dated, repairs: [] });
}

/** The rows [row][column] of some columns, without gaps, their dates, and what was changed. Throws an Error for gaps. */
function rowsOf(table, names) {
  const missing = names.filter((name) => !table.columns.has(name));
  if (missing.length) {
    throw new Error(
      `${table.name} lacks the column(s) ${missing.join(", ")}; its columns of numbers are: ${[...table.columns.keys()].join(", ")}.`,
    );
  }
  const repairs = [];
  const { columns, dates } = withoutRepeated(table, names.map((name) => table.columns.get(name)), repairs);
  const length = columns[0].length;
  let first = 0;
  for (const column of columns) while (first < length && Number.isNaN(column[first])) first++;
  const filled = columns.map((column, k) => filledFrom(column, first, names[k], table.name));
  const rows = Array.from({ length: length - first }, (_, row) => filled.map((column) => column[row]));
  if (first) repairs.push(`The first ${first} row(s) lack values: dropped.`);
  columns.forEach((column, k) => {
    const missing = column.slice(first).filter(Number.isNaN).length;
    if (missing) repairs.push(`${names[k]}: ${missing} missing value(s) filled with the last value before.`);
  });
  return { rows, dates: dates?.slice(first) ?? null, repairs };
}

const MISSING = new Set(["", "na", "nan", "-nan", "n/a", "null", "none", "<na>", "#n/a", "#na"]);

/** The rows of a CSV text, each an array of cells (RFC 4180). */
function cells(text) {
  const rows = [[]];
  let cell = "";
  let quoted = false;
  for (let k = 0; k < text.length; k++) {
    const sign = text[k];
    if (quoted) {
      if (sign !== '"') cell += sign;
      else if (text[k + 1] === '"') cell += text[++k];
      else quoted = false;
    } else if (sign === '"' && cell === "") quoted = true;
    else if (sign === "," || sign === "\n") {
      rows.at(-1).push(sign === "\n" ? cell.replace(/\r$/, "") : cell);
      cell = "";
      if (sign === "\n") rows.push([]);
    } else cell += sign;
  }
  rows.at(-1).push(cell.replace(/\r$/, ""));
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}

const HEAD = 5; // cells that decide whether a column holds dates; as in murho's Python

/** Whether the first cells of a column are dates, so that one bad date further down is an error. */
function holdsDates(column) {
  const head = column.filter((cell) => !MISSING.has(cell.toLowerCase())).slice(0, HEAD);
  return head.length > 0 && asDates(head) !== null;
}

/**
 * Milliseconds of dates, NaN for a missing one, or null where one does not parse. A date without a time zone counts as
 * UTC; 1/2/2006 is 2 January unless only day before month fits all; a whole number such as 20060102 is a date too.
 */
function asDates(column) {
  for (const dayFirst of [false, true]) {
    const moments = column.map((cell) => (MISSING.has(cell.toLowerCase()) ? null : moment(cell, dayFirst)));
    if (moments.every((time) => time === null || !Number.isNaN(time))) return moments.map((time) => time ?? NaN);
  }
  return null;
}

/** Milliseconds of one date, or NaN. */
function moment(cell, dayFirst) {
  const compact = /^((?:19|20)\d\d)(\d\d)(\d\d)$/.exec(cell);
  if (compact) return utc(...compact.slice(1).map(Number), "");
  if (!/\d/.test(cell) || Number.isFinite(Number(cell))) return NaN;
  const parts = /^(\d{1,2})[./-](\d{1,2})[./-](\d{4})(?:[ T](.*))?$/.exec(cell);
  if (parts) {
    const [one, two, year] = parts.slice(1, 4).map(Number);
    return dayFirst ? utc(year, two, one, parts[4]) : utc(year, one, two, parts[4]);
  }
  const zoned = /(z|utc|gmt|[+-]\d\d:?\d\d)$/i.test(cell) || /^\d{4}-\d\d-\d\d$/.test(cell);
  return Date.parse(zoned ? cell : `${cell.replace(/^(\d{4}-\d\d-\d\d) (\d)/, "$1T$2")}${/^\d{4}-\d\d-\d\d[ T]\d/.test(cell) ? "Z" : " UTC"}`);
}

function utc(year, month, day, time) {
  const date = new Date(Date.UTC(year, month - 1, day));
  if (date.getUTCMonth() !== month - 1 || date.getUTCDate() !== day) return NaN;
  return time ? Date.parse(`${date.toISOString().slice(0, 10)} ${time} UTC`) : date.getTime();
}

function inOrder(table) {
  const { columns, dates, dated } = table;
  if (!dates || dates.every((date, k) => !k || dates[k - 1] <= date)) return table;
  const order = dates.map((_, k) => k).sort((a, b) => dates[a] - dates[b]);
  const sorted = (values) => order.map((k) => values[k]);
  const repairs = [`The rows were not in date order: sorted by ${dated}.`];
  return { ...table, columns: new Map([...columns].map(([title, values]) => [title, sorted(values)])), dates: sorted(dates), repairs };
}

/** One row for each date: what repeats another row exactly is dropped, other values for one date are an Error. */
function withoutRepeated({ name, dates }, columns, repairs) {
  if (!dates) return { columns, dates };
  const known = new Map();
  const kept = dates.map((date, row) => {
    const values = JSON.stringify(columns.map((column) => column[row]));
    if (known.has(date) && known.get(date) !== values) {
      const when = new Date(date).toISOString().replace(/T00:00:00.000Z$/, "");
      throw new Error(`${name} has several rows with different values for ${when}. Keep one row per date.`);
    }
    const fresh = !known.has(date);
    known.set(date, values);
    return fresh;
  });
  const dropped = kept.filter((fresh) => !fresh).length;
  if (!dropped) return { columns, dates };
  repairs.push(`${dropped} row(s) that repeat another one exactly were dropped.`);
  const left = (values) => values.filter((_, row) => kept[row]);
  return { columns: columns.map(left), dates: left(dates) };
}

function filledFrom(column, first, title, name) {
  let gap = 0;
  let last = NaN;
  return column.slice(first).map((value, row) => {
    gap = Number.isNaN(value) ? gap + 1 : 0;
    if (gap > LONGEST_GAP) {
      throw new Error(
        `Column ${title} of ${name} lacks more than ${LONGEST_GAP} values in a row, up to row ${first + row + 1}. Fill the gap, or start after it.`,
      );
    }
    if (gap === 0) last = value;
    return last;
  });
}
