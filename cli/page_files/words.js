/* Numbers, dates and levels in words. */
"use strict";

/** A function that prints numbers with as many decimals as their spread deserves: three of its digits, six at most. */
function numbers(spread) {
  const decimals = spread > 0 ? Math.min(Math.max(2 - Math.floor(Math.log10(spread)), 0), 6) : 3;
  const format = new Intl.NumberFormat("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  return (value) => (Number.isFinite(value) ? format.format(value).replace(/^-/, "−") : "–");
}

const counted = new Intl.NumberFormat("en");
const count = (value) => counted.format(value);
const steps = (number) => (number === 1 ? "1 step" : `${count(number)} steps`);
const percent = (level) => `${Number((100 * level).toPrecision(4))} %`;

/** A function from a moment (milliseconds, UTC) to its name, with the time of day only where the moments have one. */
function moments(dates) {
  const daily = dates.every((date) => date % 86_400_000 === 0);
  const time = daily ? {} : { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const format = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", ...time, timeZone: "UTC" });
  return (moment) => format.format(moment);
}
