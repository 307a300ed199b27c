// Drives a page of `murho page` in Chromium as a person would, and prints what it saw as one JSON object:
// node page_in_chromium.mjs PLAN.json, with {url, file, chromium, packages, screenshots, files: {…}}.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";

const plan = JSON.parse(await readFile(process.argv[2], "utf8"));
const require = createRequire(plan.packages);
const { chromium } = require("playwright-core");
const axe = await readFile(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: plan.chromium,
  args: "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split(" "),
});
const seen = { requests: [], errors: [] };
const page = await opened({ viewport: { width: 1200, height: 900 } });
await page.goto(plan.url);

seen.first = await settled();
seen.axe = { light: await violations() };
await page.screenshot({ path: `${plan.screenshots}/light.png`, fullPage: true });
await page.emulateMedia({ colorScheme: "dark" });
seen.axe.dark = await violations();
await page.screenshot({ path: `${plan.screenshots}/dark.png`, fullPage: true });
await page.emulateMedia({ colorScheme: "light" });

// By keyboard alone: from the top to each control, then its value by the arrow keys.
seen.tabbed = [];
await page.evaluate(() => document.activeElement?.blur());
for (let k = 0; k < 12; k++) {
  await page.keyboard.press("Tab");
  seen.tabbed.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName));
}
seen.seed = await pressed("seed", "ArrowRight");
seen.level = await pressed("level", "ArrowLeft");
seen.draws = await pressed("draws", "ArrowRight");
seen.back = await pressed("origin", "ArrowLeft", 10);
await page.check("#paths");
seen.legend = await page.textContent("#legend");
await page.screenshot({ path: `${plan.screenshots}/paths.png`, fullPage: true });
await page.locator("#chart").hover({ position: { x: 200, y: 100 } });
seen.readout = await page.textContent("#readout");

await page.fill("#seed-value", plan.seed);
await page.keyboard.press("Enter");
seen.large = await settled();
await page.fill("#seed-value", "many");
await page.keyboard.press("Enter");
seen.noSeed = await alert();

// Files: broken ones are explained and change nothing.
seen.broken = await given(plan.files.broken);
await page.screenshot({ path: `${plan.screenshots}/error.png`, fullPage: true });
seen.images = await given(plan.files.images);
seen.gap = await given(plan.files.gap);
seen.text = await given(plan.files.text);
seen.zero = await given(plan.files.zero);
seen.hidden = await page.evaluate(() => ["summary", "chart", "numbers"].map((id) => getComputedStyle(document.getElementById(id)).visibility));
seen.before = await pressed("origin", "ArrowLeft");
seen.quiet = await page.evaluate(() => document.getElementById("alert").hidden);
await given(plan.files.original);
await page.evaluate(() => (document.getElementById("alert").hidden = false));
await page.click("#alert-close");
seen.focus = await page.evaluate(() => document.activeElement.id);
seen.one = await given(plan.files.one);
seen.other = await given(plan.files.other);
await page.selectOption("#column", "second");
seen.column = await settled();
seen.dropped = await dropped([plan.files.columns, plan.files.original]);

await page.setViewportSize({ width: 360, height: 740 });
await page.click("#numbers summary");
await page.waitForTimeout(200);
seen.overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
await page.screenshot({ path: `${plan.screenshots}/narrow.png`, fullPage: true });

// Opened from the disk, as by a double click.
const local = await opened({ viewport: { width: 1200, height: 900 } });
await local.goto(plan.file);
seen.local = await settled(local);

await browser.close();
console.log(JSON.stringify(seen, (_, value) => (typeof value === "bigint" ? String(value) : value)));

async function opened(options) {
  const one = await (await browser.newContext(options)).newPage();
  one.on("request", (request) => seen.requests.push(request.url()));
  one.on("console", (message) => message.type() === "error" && seen.errors.push(message.text()));
  one.on("pageerror", (error) => seen.errors.push(String(error.stack)));
  one.setDefaultTimeout(120_000);
  return one;
}

/** What the page shows once it waits for nothing. */
async function settled(one = page) {
  await one.waitForTimeout(50);
  await one.waitForFunction(() => ["ready", "error"].includes(document.documentElement.dataset.state));
  return one.evaluate(() => {
    const text = (id) => document.getElementById(id).textContent;
    const { answer } = window.murhoPage;
    const numbers = (values) => Array.from(values);
    const table = [...document.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent));
    return {
      answer: answer && {
        ...answer,
        seed: String(answer.seed),
        mean: numbers(answer.mean),
        std: numbers(answer.std),
        lower: answer.lower.map(numbers),
        upper: answer.upper.map(numbers),
        paths: answer.paths.map(numbers),
      },
      title: text("title"),
      summary: text("summary"),
      truth: text("truth"),
      speed: text("speed"),
      caption: text("table-caption"),
      chart: document.getElementById("chart").getAttribute("aria-label"),
      drawn: document.querySelectorAll("#chart canvas").length,
      table,
    };
  });
}

async function pressed(id, key, times = 1) {
  await page.focus(`#${id}`);
  for (let k = 0; k < times; k++) await page.keyboard.press(key);
  return { ...(await settled()), spoken: await page.getAttribute(`#${id}`, "aria-valuetext") };
}

async function alert() {
  await page.waitForSelector("#alert:not([hidden])");
  return page.textContent("#alert-text");
}

/** A file through the button: what the page then shows, or the alert. */
function given(file) {
  return outcome(() => page.setInputFiles("#file", file));
}

/** What follows an action: a new forecast, or an alert. */
async function outcome(action) {
  await page.evaluate(() => {
    window.before = window.murhoPage.answer;
    document.getElementById("alert").hidden = true;
  });
  await action();
  await page.waitForFunction(() => !document.getElementById("alert").hidden || window.murhoPage.answer !== window.before);
  const shown = await settled();
  const hidden = await page.evaluate(() => document.getElementById("alert").hidden);
  return { ...shown, alert: hidden ? null : await page.textContent("#alert-text") };
}

/** Files dropped on the page. */
async function dropped(paths) {
  const files = await Promise.all(paths.map(async (path) => [path.split("/").at(-1), (await readFile(path)).toString("base64")]));
  return outcome(() => page.evaluate(drop, files));
}

function drop(contents) {
  const dataTransfer = new DataTransfer();
  for (const [name, text] of contents) {
    dataTransfer.items.add(new File([Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0))], name));
  }
  for (const type of ["dragenter", "dragover", "drop"]) {
    document.body.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
  }
}

/** What axe finds wrong, of WCAG 2.1 at level AA and of good practice. */
async function violations() {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { violations } = await window.axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(" | ")}`);
  });
}
