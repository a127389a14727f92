const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();

// Swagger UI lays the example out over several lines; here each is a reading.
function onOneLine(request) {
  if (request.headers["Content-Type"] === "application/x-ndjson") {
    try {
      request.body = JSON.stringify(JSON.parse(request.body));
    } catch {
      // Several lines of the reader's own.
    }
  }
  return request;
}

window.SwaggerUIBundle({
  url: new URL("openapi.json", document.baseURI).href,
  dom_id: "#page",
  deepLinking: true,
  tryItOutEnabled: true,
  requestInterceptor: onOneLine,
});
