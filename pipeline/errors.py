"""Errors that a user can mend, told in one line."""


class UserError(Exception):
    """One line: what is wrong, where (file, row or key), and what to do about it."""


class FileError(UserError):
    """A file that a stage makes, or something like it, is missing or damaged.

    what: which file and its fault. The remedy is for programs of one's own; commands say to run 'dvc repro' instead.
    """

    def __init__(self, what: str, remedy: str = "make it again") -> None:
        super().__init__(f"{what}: {remedy}")
        self.what = what
