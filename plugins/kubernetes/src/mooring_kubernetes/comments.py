"""Comments that follow an entry of a list, when that entry goes: ruamel keeps them with what stands before them.

Lists and entries may be plain values too; those have no comments.
"""

from __future__ import annotations

from typing import Any


def replace(entries: Any, place: int, entry: Any) -> None:
    """Put another entry into a place; what followed the former one follows it. Nothing is done if both are equal."""
    if entries[place] == entry:
        return
    following = _following(entries[place])
    entries[place] = entry
    _append(entry, following)


def remove(document: Any, section: str, place: int) -> None:
    """Take an entry out of a section; what followed it stays where it was."""
    entries = document[section]
    following = _following(entries[place])
    del entries[place]
    if place > 0:
        _append(entries[place - 1], following)
    elif not entries:
        _append_at(document, section, _leading(document, section) + following[1:])
    elif following:
        before = (entries.ca.items.get(0) or [None, None])[1] or []
        lines = following.splitlines(keepends=True)[1:]
        entries.ca.items[0] = [None, [*map(_token, lines), *before], None, None]


def _leading(document: Any, section: str) -> str:
    """Take what stood before the first entry of a list that is empty now; gives it with the end of a line before it."""
    if not hasattr(document, "ca"):
        return ""
    kept = document.ca.items.get(section) or []
    document.ca.items[section] = [None, None, kept[2] if len(kept) > 2 else None, None]  # noqa: PLR2004
    entries = document[section]
    tokens = (entries.ca.comment or [None, None])[1] or []
    entries.ca.comment = None
    entries.fa.set_flow_style()  # of an empty one that is not, ruamel writes the comments before the brackets
    return "\n" + "".join(token.value for token in tokens)


def _last(entry: Any) -> tuple[Any, Any] | None:
    """The innermost container of the last value of an entry, and the value's key; None without comments."""
    found = None
    while hasattr(entry, "ca") and entry and not entry.fa.flow_style():
        key = next(reversed(entry)) if isinstance(entry, dict) else len(entry) - 1
        found = entry, key
        entry = entry[key]
    return found


def _slot(container: Any) -> int:
    """Where ruamel keeps what follows a value."""
    return 2 if isinstance(container, dict) else 0


def _held(container: Any, key: Any) -> Any:
    """What follows a value, as ruamel's token; None for nothing."""
    kept = container.ca.items.get(key) or []
    return kept[_slot(container)] if len(kept) > _slot(container) else None


def _following(entry: Any) -> str:
    """What follows an entry, from the end of its last line on."""
    last = _last(entry)
    token = _held(*last) if last is not None else None
    _, end, rest = token.value.partition("\n") if token is not None else ("", "", "")
    return end + rest if rest.strip() else ""


def _append(entry: Any, text: str) -> None:
    last = _last(entry)
    if last is not None:
        _append_at(*last, text)


def _append_at(container: Any, key: Any, text: str) -> None:
    """Let a text, which begins with the end of a line, follow a value."""
    if not text.strip() or not hasattr(container, "ca"):
        return
    kept = list(container.ca.items.get(key) or [])
    kept += [None] * ((4 if isinstance(container, dict) else 2) - len(kept))
    before = _held(container, key)
    kept[_slot(container)] = (
        _token(before.value.removesuffix("\n") + text, before.start_mark) if before else _token(text)
    )
    container.ca.items[key] = kept


def _token(text: str, mark: Any = None) -> Any:
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    return CommentToken(text, mark or CommentMark(0), None)
