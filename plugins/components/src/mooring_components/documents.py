"""Reading mooring.yaml: what it says, checked, with the line of whatever is wrong."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

import mooring as m

LONGEST = 1 << 20
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
Name = Annotated[str, msgspec.Meta(pattern=NAME)]
Path_ = tuple[str, ...]


class FromEnvironment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value from an environment variable."""

    env: Annotated[str, msgspec.Meta(min_length=1)]


class FromFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value from a file, without the line end after it; relative to the folder of mooring.yaml."""

    file: Annotated[str, msgspec.Meta(min_length=1)]


class ConnectorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A connector as it shall be."""

    type: str
    auth_method: str | None = None
    resource_type: str | None = None
    resource_id: str | None = None
    config: dict[str, Any] = {}
    """The auth method's fields. A secret is given as `{env: NAME}`, `{file: PATH}` or `"{{secret.key}}"`."""
    labels: dict[str, str] = {}
    description: str = ""
    ttl: str | None = None
    """Of what it issues, such as 15m or 1h."""
    allow_unnarrowed: bool = False
    allow_long_lived: bool = False


class ComponentEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A component as it shall be."""

    type: str
    flavor: str
    config: dict[str, Any] = {}
    connector: str | None = None
    resource_id: str | None = None
    secret: str | None = None
    """The name of a secret, which serves instead of a connector."""
    labels: dict[str, str] = {}


class Desired(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """mooring.yaml."""

    version: Literal[1] = 1
    connectors: dict[Name, ConnectorEntry] = {}
    components: dict[Name, ComponentEntry] = {}
    stacks: dict[Name, list[str]] = {}
    """Components by stack, one of each type."""


class Source(msgspec.Struct, frozen=True):
    """A document, and where its parts stand."""

    path: str
    desired: Desired
    lines: Mapping[Path_, int]

    def at(self, *path: str) -> str:
        """Where a part stands, or the nearest above it: for errors."""
        return f"{self.path}:{_line(self.lines, path)}"


def read(path: Path) -> Source:
    """The document in a file; - is standard input.

    Raises:
        InvalidConfig: it cannot be read, is no YAML, has a key twice, or one that is not known; names its line.
    """
    shown = "standard input" if str(path) == "-" else str(path)
    text = _text(path, shown)
    lines: dict[Path_, int] = {}
    plain = _plain(text, shown, lines)
    if plain is None:
        raise m.InvalidConfig(f"there is nothing in {shown}; a document has connectors, components or stacks")
    _check_keys(plain, shown, lines)
    try:
        desired = msgspec.convert(plain, Desired)
    except msgspec.ValidationError as error:
        message, place = str(error), _place(str(error), plain, lines)
    else:
        return Source(path=shown, desired=desired, lines=lines)
    what = message.partition(" - at ")[0]
    raise m.InvalidConfig(f"{shown}:{place[1]}: {'.'.join(place[0]) or 'the document'}: {what}")


def _text(path: Path, shown: str) -> str:
    import sys

    try:
        if str(path) == "-":
            text = sys.stdin.read(LONGEST + 1)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(LONGEST + 1)
    except UnicodeDecodeError:
        problem = "it is not text in UTF-8"
    except OSError as error:
        problem = error.strerror or "it cannot be opened"
    else:
        if len(text) <= LONGEST:
            return text
        problem = "it is longer than a mebibyte"
    raise m.InvalidConfig(f"{shown} cannot be read: {problem}")


def _plain(text: str, shown: str, lines: dict[Path_, int]) -> Any:
    import yaml

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return None if node is None else _value(node, (), shown, lines, set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, problem = (mark.line + 1 if mark else 1), error.problem or "it cannot be read"
    except (yaml.YAMLError, RecursionError):
        line, problem = 1, "it cannot be read"
    raise m.InvalidConfig(f"{shown}:{line}: this is not YAML: {problem}")


def _value(node: Any, path: Path_, shown: str, lines: dict[Path_, int], seen: set[int]) -> Any:
    """The value of a node; aliases are refused, by which a short text could stand for an endless one."""
    import yaml

    if id(node) in seen:
        raise m.InvalidConfig(f"{shown}:{_line(lines, path)}: an alias (*name) is not taken here; write it out")
    seen.add(id(node))
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise m.InvalidConfig(f"{shown}:{line}: a key is a plain word")
            name = str(key.value)
            if name in found:
                raise m.InvalidConfig(f"{shown}:{line}: {'.'.join([*path, name])} is there twice; remove one")
            lines[*path, name] = line
            found[name] = _value(value, (*path, name), shown, lines, seen)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_value(one, (*path, str(number)), shown, lines, seen) for number, one in enumerate(node.value)]
    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError, LookupError, AttributeError, TypeError):
        pass  # as PyYAML's constructors fail with what a tag does not fit
    finally:
        loader.dispose()
    raise m.InvalidConfig(f"{shown}:{node.start_mark.line + 1}: a number or date that cannot be; quote it for a text")


def _line(lines: Mapping[Path_, int], path: Path_) -> int:
    """The line of a part, or of the nearest above it."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


NAMED = ("connectors", "components", "stacks")
KNOWN: Mapping[str, type[msgspec.Struct]] = {"connectors": ConnectorEntry, "components": ComponentEntry}


def _check_keys(plain: Any, shown: str, lines: Mapping[Path_, int]) -> None:
    """Name a key that is not known, with its line and the one that may have been meant."""
    if not isinstance(plain, dict):
        return
    _check(plain, Desired, (), shown, lines)
    if plain.get("version", 1) != 1:
        raise m.InvalidConfig(f"{shown}:{lines.get(('version',), 1)}: version: this mooring reads version 1")
    for part in NAMED:
        for name in plain[part] if isinstance(plain.get(part), dict) else ():
            if not re.fullmatch(NAME, name):
                raise m.InvalidConfig(
                    f"{shown}:{lines.get((part, name), 1)}: {part}: {name[:128]!r} is no name; it is letters, digits, "
                    "dots, dashes and underscores, beginning with a letter or digit, 128 at most"
                )
    for part, kind in KNOWN.items():
        entries = plain.get(part)
        for name, entry in entries.items() if isinstance(entries, dict) else ():
            if isinstance(entry, dict):
                _check(entry, kind, (part, name), shown, lines)


def _check(
    given: dict[str, Any], kind: type[msgspec.Struct], path: Path_, shown: str, lines: Mapping[Path_, int]
) -> None:
    known = kind.__struct_fields__
    for key in given:
        if key not in known:
            where = f"{shown}:{lines.get((*path, key), 1)}"
            raise m.InvalidConfig(f"{where}: unknown key {'.'.join([*path, key])!r}; {m.errors.suggest(key, known)}")


def _place(message: str, plain: Any, lines: Mapping[Path_, int]) -> tuple[Path_, int]:
    """Where msgspec's complaint is about: it names fields and list places, but not the keys of maps."""
    told = re.search(r" - at `(.*)`$", message)
    steps = re.findall(r"\.(\w+)|\[(\d+|\.\.\.)\]", told[1]) if told else []
    best: Path_ = ()
    candidates: list[tuple[Path_, Any]] = [((), plain)]
    for name, index in steps:
        following: list[tuple[Path_, Any]] = []
        for path, value in candidates:
            if name and isinstance(value, dict) and name in value:
                following.append(((*path, name), value[name]))
            elif index == "..." and isinstance(value, dict):
                following += [((*path, key), one) for key, one in value.items()]
            elif index.isdecimal() and isinstance(value, list) and int(index) < len(value):
                following.append(((*path, index), value[int(index)]))
        if not following:
            break
        candidates, best = following, following[0][0]
    return best, lines.get(best, 1)


def value_of(value: Any, folder: Path, field: str, place: str) -> Any:
    """What a field is given: a secret from where it is kept; everything else as it is.

    Raises:
        InvalidConfig: the variable is not set, or the file cannot be read.
    """
    if not isinstance(value, dict) or set(value) not in ({"env"}, {"file"}):
        return value
    ((kind, name),) = value.items()
    if kind == "env":
        if not os.environ.get(str(name)):
            raise m.InvalidConfig(f"{place}: field {field!r}: not set in the environment: {name}", field=field)
        return m.Secret(os.environ[str(name)])
    try:
        text = (folder / Path(str(name)).expanduser()).read_text(encoding="utf-8")
        return m.Secret(text.removesuffix("\n").removesuffix("\r"))
    except (OSError, ValueError, RuntimeError):
        pass
    raise m.InvalidConfig(f"{place}: field {field!r}: the file {name} cannot be read as text", field=field)


def schema() -> dict[str, Any]:
    """The JSON Schema of mooring.yaml, for editors."""
    found = msgspec.json.schema(Desired)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "mooring.yaml", **found}
