/* Read a CSV file as a series: the columns of numbers, and the dates where there are any, oldest row first. */
"use strict";

const LONGEST_GAP = 5; // missing values in a row that take the last one before; as in murho's Python

/**
 * {name, columns: Map of name to numbers, dates: milliseconds UTC or null} of a CSV file with a header row.
 * Throws an Error in words for a reader. Missing values are NaN.
 */
function readCsv(text, name) {
  const [header, ...rows] = cells(text.replace(/^\uFEFF/, ""));
  if (!header || !rows.length) throw new Error(`${name} holds no table. Give a CSV file with a header row.`);
  const ragged = rows.findIndex((row) => row.length !== header.length);
  if (ragged >= 0) {
    throw new Error(
      `${name} is not a table: row ${ragged + 1} has ${rows[ragged].length} cells, but the header has ${header.length}.`,
    );
  }
  const columns = new Map();
  let dates = null;
  header.forEach((title, k) => {
    const column = rows.map((row) => row[k].trim());
    const values = column.map((cell) => (MISSING.has(cell.toLowerCase()) ? NaN : Number(cell)));
    if (values.some(Number.isFinite) && values.every((value, row) => Number.isFinite(value) || MISSING.has(column[row].toLowerCase()))) {
      columns.set(title, values);
    } else dates ??= asDates(column);
  });
  if (!columns.size) throw new Error(`${name} has no column of numbers. Its columns are: ${header.join(", ")}.`);
  return inOrder({ name, columns, dates });
}

/** The rows [row][column] that a network reads, without gaps, and their dates. Throws an Error where they have gaps. */
function rowsOf(table, names) {
  const missing = names.filter((name) => !table.columns.has(name));
  if (missing.length) {
    throw new Error(
      `${table.name} lacks the column(s) ${missing.join(", ")}; its columns of numbers are: ${[...table.columns.keys()].join(", ")}.`,
    );
  }
  const columns = names.map((name) => table.columns.get(name));
  const length = columns[0].length;
  let first = 0;
  for (const column of columns) while (first < length && Number.isNaN(column[first])) first++;
  const filled = columns.map((column, k) => filledFrom(column, first, names[k], table.name));
  const rows = Array.from({ length: length - first }, (_, row) => filled.map((column) => column[row]));
  return { rows, dates: table.dates?.slice(first) ?? null };
}

const MISSING = new Set(["", "na", "nan", "n/a", "null", "none"]);

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

/** Milliseconds of dates, all of them, or null. A date without a time zone counts as UTC; 1/2/2006 is 2 January. */
function asDates(column) {
  const moments = column.map((cell) => {
    if (!/\d/.test(cell)) return NaN;
    const zoned = /(z|utc|gmt|[+-]\d\d:?\d\d)$/i.test(cell) || /^\d{4}-\d\d-\d\d$/.test(cell);
    return Date.parse(zoned ? cell : `${cell.replace(/^(\d{4}-\d\d-\d\d) (\d)/, "$1T$2")}${/^\d{4}-\d\d-\d\d[ T]\d/.test(cell) ? "Z" : " UTC"}`);
  });
  return moments.some(Number.isNaN) ? null : moments;
}

function inOrder({ name, columns, dates }) {
  if (!dates || dates.every((date, k) => !k || dates[k - 1] <= date)) return { name, columns, dates };
  const order = dates.map((_, k) => k).sort((a, b) => dates[a] - dates[b]);
  const sorted = (values) => order.map((k) => values[k]);
  return { name, columns: new Map([...columns].map(([title, values]) => [title, sorted(values)])), dates: sorted(dates) };
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
