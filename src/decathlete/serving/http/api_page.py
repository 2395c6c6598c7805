"""The page that describes the API: made from the OpenAPI description, without scripts and without other sites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jinja2 import Environment

_METHODS = ("get", "post", "put", "delete")
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ api.info.title }} API</title><style>
:root { color-scheme: light dark; } body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem; } h2 { margin-top: 2rem; } summary { cursor: pointer; padding: .4rem 0; } details { border-bottom:
1px solid #8886; } b.m { display: inline-block; min-width: 4.5rem; } table { border-collapse: collapse; } th, td {
text-align: left; vertical-align: top; padding: .2rem .8rem .2rem 0; } pre { overflow-x: auto; } .body { padding: 0 0
1rem 4.5rem; }
</style></head><body>
<h1>{{ api.info.title }} API</h1>
<p>{{ api.info.description }} Version {{ api.info.version }}. The same description for programs:
<a href="openapi.json">openapi.json</a>.</p>
<p>If the service has a token, send it with each request: <code>Authorization: Bearer TOKEN</code>. Errors are JSON:
<code>{"error": {"code", "message", "remedy"}}</code>.</p>
<pre>curl -H "Authorization: Bearer $TOKEN" -H "X-File-Name: image.nii.gz" --data-binary @image.nii.gz \\
  "http://127.0.0.1:8080/api/v1/jobs?model=NAME"</pre>
{% for tag, routes in groups.items() %}<h2>{{ tag|capitalize }}</h2>
{% for route in routes %}<details><summary><b class="m">{{ route.method|upper }}</b> <code>{{ route.path }}</code>
{{ route.summary }}</summary><div class="body">
{% if route.description %}<p>{{ route.description }}</p>{% endif %}
{% if route.parameters %}<table><thead><tr><th>Parameter</th><th>In</th><th>Meaning</th></tr></thead><tbody>
{% for p in route.parameters %}<tr><td><code>{{ p.name }}</code>{{ "" if p.required else " (optional)" }}</td>
<td>{{ p.in }}</td><td>{{ p.description }}</td></tr>{% endfor %}</tbody></table>{% endif %}
{% if route.body %}<p>Body: {{ route.body|join(" or ") }}</p>{% endif %}
{% if route.fields %}<table><thead><tr><th>Field of the answer</th><th>Type</th></tr></thead><tbody>
{% for name, kind in route.fields.items() %}<tr><td><code>{{ name }}</code></td><td>{{ kind }}</td></tr>{% endfor %}
</tbody></table>{% endif %}</div></details>
{% endfor %}{% endfor %}</body></html>
"""


def make_api_page(api: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for tag, route in _routes(api):
        groups.setdefault(tag, []).append(route)
    return Environment(autoescape=True).from_string(_PAGE).render(api=api, groups=groups)


def _routes(api: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in api["paths"].items():
        for method in (m for m in _METHODS if m in methods):
            route = methods[method]
            summary, _, description = route.get("description", "").partition("\n\n")
            yield (
                (route.get("tags") or ["other"])[0],
                {
                    "path": path,
                    "method": method,
                    "summary": summary,
                    "description": description,
                    "parameters": route.get("parameters", []),
                    "body": list(route.get("requestBody", {}).get("content", {})),
                    "fields": _fields(api, route),
                },
            )


def _fields(api: Mapping[str, Any], route: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of the JSON that a route answers with: name -> type."""
    for status, answer in route.get("responses", {}).items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        schema = schema.get("items", schema)
        if status.startswith("2") and "$ref" in schema:
            model = api["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
            return {name: _type(field) for name, field in model.get("properties", {}).items()}
    return {}


def _type(field: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_type(part) for part in field["anyOf"])
    if "$ref" in field:
        return str(field["$ref"]).rsplit("/", 1)[-1]
    if field.get("type") == "array":
        return f"array of {_type(field.get('items', {}))}"
    return str(field.get("type", "any"))
