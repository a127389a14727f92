import { init } from "./redoc.standalone.js";

const fontFamily = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif";
const address = new URL("openapi.json", document.baseURI);
const description = await (await fetch(address)).json();

// ReDoc takes the page for a folder, which relative addresses would be in.
for (const server of description.servers) server.url = new URL(server.url, address).href.replace(/\/$/, "");

init(
  description,
  { disableTelemetry: true, theme: { typography: { fontFamily, headings: { fontFamily } } } },
  document.getElementById("page"),
);
