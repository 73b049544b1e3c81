"""Errors that a user can mend, told in one line."""


class UserError(Exception):
    """One line: what is wrong, where (file, row or key), and what to do about it."""
