"""The description of a function's API as pages: Swagger UI at `/docs` to try it out, ReDoc at `/redoc` to read it."""

from pathlib import Path

from shared import edge
from shared.pages import CONTENT_POLICY, Site

# ReDoc makes its style sheets itself, from an empty one whose hash this is, and brings a font of its icons.
_REDOC = {
    **CONTENT_POLICY,
    "style-src": "'self' 'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='",
    "font-src": "data:",
}
_SITE = Site(
    "docs",
    Path(__file__).parent / "docs",
    {
        "swagger-ui.js": "offapi/swagger_bundle.js",
        "swagger-ui.css": "offapi/swagger_style.css",
        "redoc.standalone.js": "offapi/redoc.js",
    },
    # ReDoc would load the logo of its makers from them.
    {b"https://cdn.redoc.ly/redoc/logo-mini-full.svg": b"data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg'/>"},
)
ROUTES: edge.Routes = {
    "/docs": edge.Route(edge.GET, _SITE.page("docs.html")),
    "/redoc": edge.Route(edge.GET, _SITE.page("redoc.html", _REDOC)),
    "/docs/": edge.Route(edge.GET, _SITE.file),
}
