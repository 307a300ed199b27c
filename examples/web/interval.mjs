// An interval in Node.js: node examples/web/interval.mjs demo-output/model.onnx, after npm install in runtime/js.
import { load } from "../../runtime/js/murho.js";

const model = await load(process.argv[2]);
const { window } = model.card.training;
const history = Array.from({ length: window }, (_, day) => [100 + Math.sin(day)]); // yours: the latest values, oldest first
const { mean, lower, upper } = await model.predict([history], { draws: 256, level: 0.9, seed: 0 });
mean.data.forEach((value, step) => {
  console.log(`Step ${step + 1}: ${value.toFixed(2)}, from ${lower.data[step].toFixed(2)} to ${upper.data[step].toFixed(2)}`);
});
