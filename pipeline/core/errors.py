"""Errors that a user can mend, told in one line."""

MAX_CHARACTERS = 1000  # of a line: whoever reads it sees its beginning and its end, where the remedy stands


class UserError(Exception):
    """One line: what is wrong, where (file, row or key), and what to do about it."""


class FileError(UserError):
    """A file that a stage makes, or something like it, is missing or damaged.

    what: which file and its fault. The remedy is for programs of one's own; commands say to run 'dvc repro' instead.
    """

    def __init__(self, what: str, remedy: str = "make it again") -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what


def one_line(text: str, most: int = MAX_CHARACTERS) -> str:
    """`text` as a terminal may show it: one line of at most about `most` characters.

    Runs of white space become a space; what has no shape of its own (controls, escapes, marks of direction, halves of
    surrogate pairs) becomes an escape such as `\\x1b`; of what is too long the middle is left out.
    """
    if len(text) > 2 * most:  # before the work: a cell may have millions of characters
        text = f"{text[:most]} {text[-most:]}"
    line = " ".join("".join(_escaped(character) for character in text).split())
    if len(line) > most:
        line = f"{line[: most // 2]} ... {line[-most // 2 :]}"
    return line


def _escaped(character: str) -> str:
    return character if character.isprintable() or character in " \t\r\n" else ascii(character)[1:-1]
