// Node's HTTP client with an agent that keeps its connection: a reading at a time, sent in each way that it has.
import http from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";

const [address, readings] = [process.argv[2], JSON.parse(process.argv[3])];
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const ways = [
  (body) => [{ "Content-Length": Buffer.byteLength(body) }, [body]],
  (body) => [{ "Transfer-Encoding": "chunked" }, [body.slice(0, 9), body.slice(9)]],
  (body) => [{ "Content-Encoding": "gzip" }, [gzipSync(body)]],
  (body) => [{ "Content-Length": Buffer.byteLength(body), Expect: "100-continue" }, [body]],
];

function send([headers, parts]) {
  return new Promise((resolve, reject) => {
    const options = { agent, method: "POST", headers: { "Content-Type": "application/json", ...headers } };
    const request = http.request(address, options, async (response) => {
      for await (const _ of response);
      resolve([response.statusCode, request.reusedSocket]);
    });
    request.on("error", reject);
    const write = () => {
      parts.slice(0, -1).forEach((part) => request.write(part));
      request.end(parts.at(-1));
    };
    headers.Expect ? request.on("continue", write) && request.flushHeaders() : write();
  });
}

const answers = [];
for (const [index, reading] of readings.entries()) {
  if (index === readings.length - 1) await sleep(5500);
  answers.push(await send(ways[index % ways.length](JSON.stringify(reading))));
}
agent.destroy();
console.log(JSON.stringify(answers));
