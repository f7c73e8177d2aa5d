// A receiver of callbacks in Node.js, with Express 5.
//
// npm install
// WEBHOOK_SECRET=whsec_... PORT=8000 node receiver.js

import { createHmac, timingSafeEqual } from "node:crypto";
import express from "express";

const SECRET = (process.env.WEBHOOK_SECRET ?? "").trim();
const KEY = Buffer.from(SECRET.replace(/^whsec_/, ""), "base64"); // leaves out what is no base64
if (!/^whsec_([A-Za-z0-9+/]{4})+([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(SECRET) || KEY.length < 24) {
  console.error("WEBHOOK_SECRET must be the secret you were given: whsec_...");
  process.exit(1);
}
const TOLERANCE_SECONDS = 300;
const MAX_BODY_BYTES = 1024 * 1024;
const MAX_SEEN = 100_000;
const UTF_8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }); // refuses what JSON does not allow

const seen = new Set(); // the webhook-ids of late, oldest first; yours: a table with a unique key

// Why a callback does not verify; null if it does. `body` is the bytes as they came, a Buffer.
function problem(headers, body) {
  const [id, timestamp, given] = ["id", "timestamp", "signature"].map((name) => headers[`webhook-${name}`]);
  if (!id || !timestamp || !given) return "a header is missing";
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= TOLERANCE_SECONDS)) {
    return "webhook-timestamp is too old, or the clock is off";
  }
  const hmac = createHmac("sha256", KEY).update(`${id}.${timestamp}.`).update(body);
  const expected = Buffer.from(`v1,${hmac.digest("base64")}`);
  const matches = given.split(" ").some((word) => {
    const one = Buffer.from(word);
    return one.length === expected.length && timingSafeEqual(one, expected);
  });
  return matches ? null : "no signature matches";
}

// Your work; it runs after the answer.
async function work(id, callback) {
  console.log("callback", id, JSON.stringify(callback));
}

const app = express();

app.post("/callbacks", express.raw({ type: () => true, limit: MAX_BODY_BYTES, inflate: false }), (request, response) => {
  const body = request.body ?? Buffer.alloc(0);
  const found = problem(request.headers, body);
  if (found) return response.status(401).send(found);
  let callback;
  try {
    callback = JSON.parse(UTF_8.decode(body));
  } catch {
    return response.status(400).send("the body is not JSON");
  }
  const id = request.headers["webhook-id"];
  const first = !seen.has(id);
  seen.add(id); // store the callback here, before the answer: it does not come again
  if (seen.size > MAX_SEEN) seen.delete(seen.values().next().value);
  response.status(204).end(); // also to one that came before
  if (first) setImmediate(() => work(id, callback).catch(console.error));
});

app.use((error, request, response, next) => {
  response.status(error.status ?? 500).send(error.message); // 413 for a body that is too long
});

const port = Number(process.env.PORT ?? 8000);
app.listen(port, "127.0.0.1", (error) => {
  if (error) {
    console.error(error.message); // the port is taken, for example
    process.exit(1);
  }
  console.log(`listening on http://127.0.0.1:${port}/callbacks`);
});
