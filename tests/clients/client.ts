// What somebody writes against the types that are made of the description: node client.js ADDRESS TOKEN
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

declare const process: { argv: string[] };
const [, , baseUrl, token] = process.argv as [string, string, string, string];
const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });

const timestamp = new Date().toISOString();
const body: components["schemas"]["Reading"] = { building_id: "B1", room_id: "101", temperature: 21.5, timestamp };
const stored = await client.POST("/v1/temperature", { body });
const query = { building_id: "B1", start: new Date(Date.now() - 3600e3).toISOString() };
const average = await client.GET("/v1/temperature/average", { params: { query } });
const rooms = await client.GET("/v1/temperature/rooms");
const refused = await client.GET("/v1/temperature/average", { params: { query: { building_id: "" } } });

console.log(
  JSON.stringify({
    accepted: stored.data?.accepted,
    count: average.data?.count,
    average: average.data?.average_temperature,
    rooms: rooms.data?.rooms.map(({ room_id }) => room_id),
    faults: refused.error?.errors?.map(({ field }) => field),
  }),
);
