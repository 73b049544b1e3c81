"""Errors that a user can mend, each told in one line."""

MAX_CHARACTERS = 1000  # of a line: whoever reads it sees its beginning and its end, where the remedy stands


class UserError(Exception):
    """One line: what is wrong, where (file, row or key), and what to do about it."""


class FileError(UserError):
    """A file that a stage makes, or a file of that kind, is missing or damaged.

    Attributes:
        what: which file, and what is wrong with it. Library users read the remedy after it. Commands replace the remedy
            by the advice to run 'dvc repro'.
    """

    def __init__(self, what: str, remedy: str = "make it again") -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what


def one_line(text: str, most: int = MAX_CHARACTERS) -> str:
    """Return `text` as one line of at most about `most` characters that a terminal may show.

    Each run of white space becomes one space. Characters without a shape of their own (controls, escapes, marks of
    direction, halves of surrogate pairs) become escapes such as `\\x1b`. Text that is too long loses its middle.
    """
    if len(text) > 2 * most:  # before the work: a cell may have millions of characters
        text = f"{text[:most]} {text[-most:]}"
    line = " ".join("".join(_escaped(character) for character in text).split())
    if len(line) > most:
        line = f"{line[: most // 2]} ... {line[-most // 2 :]}"
    return line


def shown(value: object, most: int = 80) -> str:
    """Return a value from outside as a message may show it: its `repr` as `one_line` has it."""
    return one_line(repr(value), most)


def _escaped(character: str) -> str:
    return character if character.isprintable() or character in " \t\r\n" else ascii(character)[1:-1]
