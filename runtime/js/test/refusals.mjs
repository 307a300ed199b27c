/**
 * Try to load files that are no artifacts, and print why not: {path: message}.
 *
 *     node refusals.mjs FILE…
 */

import { ArtifactError, load } from "../murho.js";

const messages = {};
for (const path of process.argv.slice(2)) {
  try {
    await load(path);
    messages[path] = "loaded";
  } catch (error) {
    if (!(error instanceof ArtifactError)) throw error;
    messages[path] = error.message;
  }
}
console.log(JSON.stringify(messages));
