// Every URL of the API once, with retries. CASK_URL is the service, CASK_TOKEN your token. Node 18 and later.
import { readFile } from "node:fs/promises";

const SERVICE = process.env.CASK_URL ?? "http://localhost:8000";
const TOKEN = { "X-Api-Token": process.env.CASK_TOKEN ?? "" };
const ATTEMPTS = 5;

/** The answer; sent again where that helps. Throws with the service's own words. */
async function ask(method, path, body, headers = {}) {
  for (let attempt = 1; ; attempt++) {
    const how = { method, body, headers: { ...TOKEN, ...headers }, signal: AbortSignal.timeout(10_000) };
    const answer = await fetch(SERVICE + path, how);
    if (answer.ok) return answer;
    if (![429, 502, 503, 504].includes(answer.status) || attempt === ATTEMPTS) throw new Error(await answer.text());
    // Where nothing is said, twice as long each time.
    const seconds = Number(answer.headers.get("Retry-After") ?? 2 ** (attempt - 1));
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  }
}

const json = async (method, path, document) =>
  (await ask(method, path, document && JSON.stringify(document), { "Content-Type": "application/json" })).json();

function form(name, files, options = {}) {
  const found = new FormData();
  for (const file of files) found.append(name, new Blob([file]), "image.jpg");
  for (const [option, value] of Object.entries(options)) found.append(option, value);
  return found;
}

const cone = await readFile("models/samples/cone.jpg");
const text = cone.toString("base64");

const detected = await (await ask("POST", "/v1/detect", form("image", [cone], { max_results: 3 }))).json();
const raw = await (await ask("POST", "/v1/classify?top_k=1", cone, { "Content-Type": "image/jpeg" })).json();
const classified = await json("POST", "/v1/classify", { images: [text], top_k: 1 });
console.log(detected.results[0].detections.length, raw.results[0], classified.results[0]);

const { models } = await json("GET", "/v1/models");
if (models.some((each) => each.task === "segment"))
  console.log((await (await ask("POST", "/v1/segment", form("image", [cone], { max_classes: 3 }))).json()).results[0]);
if (models.some((each) => each.task === "instances"))
  console.log((await (await ask("POST", "/v1/instances", form("image", [cone]))).json()).results[0]);
if (models.some((each) => each.task === "embed"))
  console.log((await (await ask("POST", "/v1/embed", form("image", [cone]))).json()).results[0]);

const model = models[0].name;
console.log((await json("GET", `/v1/models/${model}`)).architecture);

const entry = { image: { content: text }, features: [{ score_th: 0.5, maxResults: 1 }] };
console.log((await json("POST", "/predict", { requests: [entry] })).responses[0]);
console.log((await json("POST", "/", { image: text, nms_iou: 0.4 })).normalizedVertices[0]);
console.log((await ask("POST", "/upload", form("image_upload", [cone]))).status);

const key = { "Idempotency-Key": crypto.randomUUID() };
const { id } = await (await ask("POST", "/v1/jobs", form("image", [cone], { task: "classify" }), key)).json();
let job = await json("GET", `/v1/jobs/${id}`);
while (["queued", "running"].includes(job.state)) {
  await new Promise((resolve) => setTimeout(resolve, 1000));
  job = await json("GET", `/v1/jobs/${id}`);
}
console.log(job.state, job.progress, (await json("GET", "/v1/jobs")).jobs.length > 0);
console.log((await json("GET", `/get_result?job_id=${id}`)).responses[0].labels.length);
await ask("DELETE", `/v1/jobs/${id}`);

const merged = await (await ask("POST", "/v1/ensemble?task=classify", form("image", [cone]))).json();
console.log(merged.results[0].predictions[0], merged.members.length, "members;", merged.missing.length, "missing");

const call = { jsonrpc: "2.0", method: "Image.classify", params: [text, 1], id: 1 };
console.log((await json("POST", "/api", call)).result.results[0]);

const inputs = [{ name: "image", datatype: "BYTES", shape: [1], data: [text] }];
console.log((await json("POST", `/v2/models/${model}/infer`, { inputs })).outputs[0].data);
console.log((await json("POST", "/v2/repository/index")).length, (await json("GET", `/v2/models/${model}`)).versions);
const asked = ["/v2", "/v2/health/live", "/v2/health/ready", `/v2/models/${model}/ready`, "/v2/models"];
for (const path of [...asked, "/v2/models/stats", `/v2/models/${model}/stats`, `/v2/models/${model}/config`])
  console.log(path, await json("GET", path));
for (const path of ["/livez", "/readyz", "/startupz", "/status", "/version", "/openapi.json"])
  console.log(path, (await ask("GET", path)).status);
