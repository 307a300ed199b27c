/*
 * The worker that predicts. It gets ONNX Runtime and murho's modules as text and makes modules of them itself: that works
 * for a page opened by a double click too, whose workers may load no file and no module but their own.
 */
"use strict";

let ort, murho, model, opened, running;

const tasks = {
  async start({ runtime, wasm, modules }) {
    ort = await import(address(new TextDecoder().decode(await unpacked(runtime))));
    ort.env.wasm.wasmBinary = (await unpacked(wasm)).buffer;
    ort.env.wasm.numThreads = 1; // more need headers that few static servers send
    murho = await import(linked(modules));
  },

  /** Open an artifact; the one before goes on predicting until `keep` is called. */
  async load({ file, name, packed }) {
    await opened?.release();
    opened = undefined;
    opened = await murho.load(file ?? new File([await unpacked(packed)], name), { backend: ort });
    return opened.card;
  },

  /** Predict with the artifact that was opened last. */
  async keep() {
    running?.abort();
    await model?.release();
    [model, opened] = [opened, undefined];
  },

  /** The intervals of one window, {data, dims}, and the paths of the first draws. A newer call ends an older one. */
  async predict({ x, draws, level, seed, paths }) {
    running?.abort();
    const { signal } = (running = new AbortController());
    const began = performance.now();
    const { mean, std, lower, upper, samples } = await model.predict(x, { draws, level, seed, signal });
    const milliseconds = performance.now() - began;
    const width = mean.data.length;
    const byLevel = (ends) => level.map((_, k) => ends.data.slice(k * width, (k + 1) * width));
    const shown = Array.from({ length: Math.min(paths, samples.dims[0]) }, (_, draw) =>
      samples.data.slice(draw * width, (draw + 1) * width),
    );
    return { mean: mean.data, std: std.data, lower: byLevel(lower), upper: byLevel(upper), paths: shown, milliseconds };
  },
};

onmessage = async ({ data: { id, task, details } }) => {
  try {
    postMessage({ id, result: await tasks[task](details) });
  } catch ({ name, message }) {
    postMessage({ id, error: { name, message } });
  }
};

function address(source) {
  return URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
}

/** The address of the last of some modules [file, source], in which each imports only those before it. */
function linked(modules) {
  const addresses = new Map();
  for (const [file, source] of modules) {
    addresses.set(file, address(source.replace(/"\.\/([\w.]+)"/g, (text, name) => (addresses.has(name) ? `"${addresses.get(name)}"` : text))));
  }
  return addresses.get(modules.at(-1)[0]);
}

/** Bytes of a gzip file in base64. */
async function unpacked(text) {
  const packed = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
