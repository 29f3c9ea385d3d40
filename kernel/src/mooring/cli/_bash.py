"""bash's completion: it takes colons for the ends of words, and resource ids have them."""

from __future__ import annotations

import os

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

PASSED = "COMP_CWORD=$COMP_CWORD"
LINE = 'COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS"'


class Bash(BashComplete):
    """click's, given the line as it was typed; of a value that has colons, bash wants what follows the last."""

    source_template = BashComplete.source_template.replace(PASSED, f"{PASSED} {LINE}")
    _typed = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the cursor, and the one that it is in."""
        line = os.environ.get("COMP_LINE")
        if line is None:
            return super().get_completion_args()
        words = split_arg_string(line)
        incomplete = words.pop() if len(words) > 1 and not line[-1:].isspace() else ""
        self._typed = incomplete.partition("=")[2] if incomplete.startswith("-") else incomplete
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """A line of the answer."""
        known, colon, _ = self._typed.rpartition(":")
        if colon and ":" in os.environ.get("COMP_WORDBREAKS", ""):
            item.value = item.value.removeprefix(known + colon)
        return super().format_completion(item)


def enlist() -> None:
    """Have click use it."""
    add_completion_class(Bash)
