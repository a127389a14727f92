import { init } from "./redoc.standalone.js";

const fontFamily = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif";

init(
  new URL("openapi.json", document.baseURI).href,
  // Its search runs in a worker that it makes of text, which the page is not allowed.
  { disableSearch: true, theme: { typography: { fontFamily, headings: { fontFamily } } } },
  document.getElementById("page"),
);
