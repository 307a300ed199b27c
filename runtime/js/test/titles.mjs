/**
 * Serve folders and print the title that each one's page sets: node titles.mjs FOLDER…
 *
 * Prints {folder: title}; what a page complains of goes to stderr.
 */

import { serve, start } from "./browser.mjs";

const folders = process.argv.slice(2);
const server = await serve(Object.fromEntries(folders.map((folder, k) => [`/${k}/`, folder])));
const browser = await start();
const titles = {};
try {
  for (const [k, folder] of folders.entries()) {
    const page = await browser.newPage();
    page.on("pageerror", (error) => console.error(error));
    await page.goto(`${server.url}/${k}/index.html`);
    await page.waitForFunction(() => document.title !== "waiting", null, { timeout: 60_000 });
    titles[folder] = await page.title();
  }
  console.log(JSON.stringify(titles));
} finally {
  await browser.close();
  server.close();
}
