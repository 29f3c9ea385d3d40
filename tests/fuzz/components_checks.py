"""References to secrets and mooring.yaml: what is drawn for each, and what must hold."""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
from held import outcome, taken
from near import near

from mooring.errors import InvalidConfig, UnknownDocument
from mooring.references import references, resolve
from mooring.types import Secret
from mooring_components.documents import read

HELD = {"db": {"user": Secret("u"), "url": Secret("{{db.user}}@{{host.name}}")}, "host": {"name": Secret("h")}}
REFERENCES = near(
    ["{{db.user}}", "a{{ db.url }}b", "{{none.key}}", "{{loop.a}}", "{{db.none}}"], ["{{", "}}", ".", "db", "user", " "]
)
DOCUMENT = """version: 1
connectors:
  one: {type: fake, auth_method: key, config: {key: {env: KEY}}, labels: {team: ml}}
components:
  files: &a {type: artifact-store, flavor: s3, config: {path: "s3://a"}, connector: one}
stacks: {all: [files]}
"""
DOCUMENTS = near(
    [DOCUMENT], ["&a ", "*a", "? ", "- ", ": ", "\n", "!!python/name:os.system", "---\n", "{", "[", "|", "'"]
)


async def _held(name: str) -> dict[str, Secret]:
    if name == "loop":
        return {"a": Secret("{{loop.a}}")}
    if name not in HELD:
        raise UnknownDocument(f"no secret is named {name!r}")
    return HELD[name]


@outcome
def check_references(text: str) -> None:
    secret = taken(lambda: Secret(text), ValueError)
    named = references({"a": [text, secret], "b": 1})
    assert named == references(text)
    found = taken(lambda: anyio.run(resolve, {"field": text}, _held), InvalidConfig, UnknownDocument, secret=False)[
        "field"
    ]
    if not named:
        assert found == text
    elif named <= HELD.keys():
        assert "{{db.user}}" not in found


@outcome
def check_document(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mooring.yaml"
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        source = taken(lambda: read(path), InvalidConfig, secret=False)
    for name in source.desired.connectors:
        assert source.at("connectors", name).startswith(f"{path}:")
