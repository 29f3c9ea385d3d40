"""Canaries, the search for them in every form, and a vendor that tells all it knows."""

import base64
import functools
import html
import importlib.util
import json
import os
import random
import re
import string
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

HARD = "\"'\\/+&?=%<>#;~"
"""What URLs, JSON, XML, shells and reprs escape."""
MARK = "c4N'\"\\/+&?=%<>#;~ü€nary"
"""What the canaries begin with that may hold anything."""
PLAIN_MARK = "C4N4RYC4N4RY"
"""And those that may hold letters and digits only."""
HERE = Path(__file__).parent
BLANK = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\s+")


@functools.cache
def forms(secret: str) -> dict[str, bytes]:
    """A secret as it may lie in a text, a file or a memory dump."""
    raw = secret.encode()
    texts = {
        "plain": secret,
        "reversed": secret[::-1],
        "quote": quote(secret),
        "quote all": quote(secret, safe=""),
        "quote_plus": quote_plus(secret),
        "lower quote": re.sub("%..", lambda found: found[0].lower(), quote(secret, safe="")),
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
        "json": json.dumps(secret)[1:-1],
        "json in utf-8": json.dumps(secret, ensure_ascii=False)[1:-1],
        "json in json": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "repr": repr(secret)[1:-1],
        "repr within": repr(f"'\"{secret}")[4:-1],
        "repr of bytes": repr(raw)[2:-1],
        "html": html.escape(secret),
        "xml": html.escape(secret, quote=False),
    }
    found = {name: text.encode() for name, text in texts.items()}
    found |= {f"utf-16-{order}": secret.encode(f"utf-16-{order}") for order in ("le", "be")}
    for before in range(3):
        padded = bytes(before) + raw
        whole = base64.b64encode(padded[: len(padded) // 3 * 3])[(before * 4 + 2) // 3 :]
        found[f"base64 at {before}"] = whole
        found[f"url-safe base64 at {before}"] = whole.translate(bytes.maketrans(b"+/", b"-_"))
    return found


class Canaries:
    """Secrets that were planted: each unique, and the same in every run.

    All begin with a mark, by which a text is searched once for all of them. A secret that is too short for one is
    searched for by itself.
    """

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}

    def plant(self, name: str, pattern: str = "") -> str:
        """A new one. A pattern has `*` for a capital or digit, `0` for a digit; without one it is hard to escape."""
        dice = random.Random(name)
        if pattern:
            signs = {"*": string.ascii_uppercase + string.digits, "0": string.digits}
            made = "".join(dice.choice(signs[sign]) if sign in signs else sign for sign in pattern)
        else:
            made = MARK + "".join(dice.choice(string.ascii_letters + string.digits + HARD) for _ in range(24))
        assert made not in self.planted.values()
        self.planted[name] = made
        return made

    def __call__(self, *places: Any) -> list[str]:
        """Where any of them is, in any form, in texts, bytes or other values (by repr and str): what is around it."""
        data = b"\0".join(dict.fromkeys(map(raw, places)))
        joined = BLANK.sub(b"", data)  # as a table wraps it and a terminal colours it
        marks = {MARK, PLAIN_MARK} | {one for one in self.planted.values() if not one.startswith((MARK, PLAIN_MARK))}
        return [
            f"{form}: {around!r}"
            for mark in sorted(marks)
            for form, text in forms(mark).items()
            for around in _around(text, data) or _around(text, joined)
        ]


def _around(text: bytes, data: bytes) -> list[bytes]:
    """Where a form is; digits, only where they stand alone."""
    if len(text) < 6:  # the middle of a short one in base64
        return []
    edge, end = (rb"(?<![0-9A-Za-z.])", rb"(?![0-9A-Za-z])") if len(text) < 12 else (b"", b"")
    found = re.finditer(edge + re.escape(text) + end, data)
    return [data[max(0, one.start() - 200) : one.end() + 40] for one in islice(found, EXCERPTS)]


EXCERPTS = 2


def raw(place: Any) -> bytes:
    if isinstance(place, bytes):
        return place
    return (place if isinstance(place, str) else f"{place!r} {place}").encode(errors="surrogatepass")


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


def told_by(error: BaseException) -> str:
    """All that a crash reporter takes of an error: the chain that Python follows and the one that it hides, arguments,
    notes, attributes, and every local variable of each frame but those of tests and plugins."""
    parts, seen, left = [], set(), [error]
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        notes = getattr(one, "__notes__", ())
        parts += [repr(one), str(one), repr(one.args), repr(vars(one)), repr(notes), str(notes)]
        parts += ours(one)
        left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return "\n".join(parts)


def ours(error: BaseException) -> Iterator[str]:
    """The frames of mooring and of its plugins, with their variables."""
    for frame in traceback.StackSummary.extract(traceback.walk_tb(error.__traceback__), capture_locals=True):
        if "/mooring" in frame.filename and not frame.filename.startswith(str(HERE)):
            yield f"{frame.filename}:{frame.lineno} {frame.line} {frame.locals}"


@pytest.fixture
def told() -> Callable[[BaseException], str]:
    return told_by


@pytest.fixture
def hostile() -> Iterator[ModuleType]:
    """The module of the vendor that tells all, fresh."""
    spec = importlib.util.spec_from_file_location("mooring_hostile", HERE / "hostile.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["mooring_hostile"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mooring_hostile"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's mooring keeps its things, and a folder for what is temporary beside it."""
    for name in [name for name in os.environ if name.startswith(("MOORING_", "AWS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MOORING_HOME", str(tmp_path / "home"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "home"


@pytest.fixture
def at_rest(home: Path) -> Callable[[], bytes]:
    """Every byte below the home and the temporary folder, names too."""

    def read() -> bytes:
        files = [file for folder in (home, home.parent / "tmp") for file in folder.rglob("*")]
        assert home / "mooring.db" in files
        return b"\n".join(str(file).encode() + (file.read_bytes() if file.is_file() else b"") for file in files)

    return read


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vendor that tells all is installed, for this process and for those that it starts."""
    folder = tmp_path / "site"
    about = folder / "mooring_hostile-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mooring-hostile\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[mooring.connectors]\nhostile = mooring_hostile:connector\n")
    (folder / "mooring_hostile.py").write_text((HERE / "hostile.py").read_text())
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))


@pytest.fixture
async def echo(hostile):
    """A vendor's server that refuses with all that it was sent: in its head, and as XML, JSON or HTML."""
    from aiohttp import web

    async def answer(request: web.Request) -> web.Response:
        sent = f"{request.raw_path} {dict(request.headers)} {(await request.read()).decode()}"
        body = f"<e><Code>{sent}</Code></e>" + json.dumps({"error": sent}) + hostile.quoting(sent)
        headers = {"Retry-After": sent.split("\n", maxsplit=1)[0][:500], "WWW-Authenticate": "Bearer"}
        return web.Response(text=body, status=next(statuses), reason="no", headers=headers)

    statuses = iter((400, 401, 403, 404, 429, 500, 503, 302, 200) * 100)
    application = web.Application()
    application.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()
