"""The API's documentation page: Swagger UI, served from an installed package and not from a CDN."""

from importlib.resources import files

from fastapi import APIRouter, HTTPException, Response

PACKAGE = "fastapi_offline"
FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
"""The package's files that the page needs. The package is in the extra `api`."""
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Callback dispatcher</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
START = """SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui", validatorUrl: null });
"""
"""Without `validatorUrl: null` Swagger UI would send the document to its makers' validator."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Allows only these scripts; inline styles are allowed because Swagger UI sets them."""

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page() -> Response:
    """The page."""
    return Response(PAGE, headers=HEADERS, media_type="text/html")


@router.get("/docs/{name}")
async def file(name: str) -> Response:
    """A file that the page loads."""
    if name == "start.js":
        return Response(START, headers=HEADERS, media_type="text/javascript")
    if name not in FILES:
        raise HTTPException(404, "Not Found")
    content = (files(PACKAGE) / "static" / name).read_bytes()
    return Response(content, headers=HEADERS, media_type=FILES[name])
