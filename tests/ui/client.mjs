// Calls the app as a JavaScript program does: node client.mjs ADDRESS PHOTO -> one line of JSON.
import { readFile } from "node:fs/promises";
import { Client, handle_file } from "@gradio/client";

const [address, photo] = process.argv.slice(2);
const app = await Client.connect(address, { events: ["data", "status"] });
const names = Object.keys((await app.view_api()).named_endpoints);
const picture = handle_file(new Blob([await readFile(photo)], { type: "image/png" }));
const asked = { photo: picture, num_inference_steps: 2, formats: ["npy"] };

const { data } = await app.predict("/predict_depth", asked);
const file = await fetch(data[0].npy.url);
let refusal = "";
try {
  await app.predict("/predict_depth", { ...asked, num_inference_steps: 4.7 });
} catch (error) {
  refusal = error.message ?? String(error);
}

const job = app.submit("/predict_depth", { ...asked, num_inference_steps: 50, ensemble_size: 20 });
let seen = 0;
for await (const event of job) {
  if (event.type === "data" && ++seen === 2) await job.cancel();
}
const after = await app.predict("/predict_depth", { ...asked, num_inference_steps: 1 });
console.log(JSON.stringify({
  names, seen, refusal, manifest: data[0].manifest, bytes: (await file.arrayBuffer()).byteLength,
  after: after.data[0].manifest.settings.num_inference_steps,
}));
process.exit(0);
