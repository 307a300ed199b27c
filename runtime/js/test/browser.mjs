/** Debian's Chromium, headless, and a server of files on this machine for it. */

import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";

import { chromium } from "playwright-core";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" };
export const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";

/**
 * Serve folders, {"/name/": folder}, on a free port of 127.0.0.1.
 * @returns {Promise<{url: string, close: () => void}>}
 */
export async function serve(folders) {
  const server = createServer((request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
    const prefix = Object.keys(folders).find((name) => path.startsWith(name));
    const stream = createReadStream(prefix ? join(folders[prefix], path.slice(prefix.length)) : "/nowhere");
    stream.on("error", () => response.writeHead(404).end());
    stream.on("open", () => {
      response.writeHead(200, { "Content-Type": TYPES[extname(path)] ?? "application/octet-stream" });
      stream.pipe(response);
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

/** Start Chromium without what it would ask of the network. */
export function start() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"];
  args.push("--disable-component-update", "--disable-sync");
  return chromium.launch({ executablePath: CHROMIUM, args });
}
