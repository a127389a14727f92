// The SDK of CloudEvents for JavaScript: an event in each of its modes to the address given.
import cloudevents from "cloudevents";

const { CloudEvent, HTTP, Mode, emitterFor, httpTransport } = cloudevents;
const [address, readings] = [process.argv[2], JSON.parse(process.argv[3])];
const event = (data) =>
  new CloudEvent({
    source: "/buildings/Z%C3%BCrich%20%221%22",
    type: "dev.temperature.reading.v1",
    subject: 'Zürich "1" 50%',
    datacontenttype: "application/json",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data,
  });

for (const [index, mode] of [Mode.BINARY, Mode.STRUCTURED].entries()) {
  const { body } = await emitterFor(httpTransport(address), { binding: HTTP, mode })(event(readings[index]));
  console.log(body);
}
// It has no serializer for batches: they are JSON.
const batch = JSON.stringify(readings.slice(2).map((reading) => event(reading).toJSON()));
const headers = { "Content-Type": "application/cloudevents-batch+json" };
console.log(await (await fetch(address, { method: "POST", headers, body: batch })).text());
