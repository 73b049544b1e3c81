"""End every command of this project the same way: fixed exit codes, and one line per error."""

import signal
import sys
import traceback
from collections.abc import Callable

from pipeline.core.ending import STOPPING, exit_code, raising_on_signals
from pipeline.core.errors import FileError, UserError, one_line
from pipeline.core.system_errors import system_line

EXIT_USER_ERROR = 2


def exit_on_user_error(action: Callable[[], object]) -> None:
    """Call `action`. Turn an error that a user can mend into one line on stderr and exit code 2.

    A signal that asks the program to end prints one word, and the exit code is 128 plus the signal's number.
    """
    received: list[int] = []
    try:
        with raising_on_signals() as received:
            action()
    except BaseException as error:
        if received or isinstance(error, KeyboardInterrupt):
            # what stopped generators hold (processes, temporary files) ends here, not with the interpreter
            traceback.clear_frames(error.__traceback__)
            number = signal.Signals((received or [signal.SIGINT])[0])
            _exit(STOPPING[number], exit_code(number))
        line = _user_line(error)
        if line is None:
            raise
        _exit(f"error: {line}", EXIT_USER_ERROR)


def _user_line(error: BaseException) -> str | None:
    if isinstance(error, FileError):
        return f"{error.what}: run 'dvc repro' to make it"
    return str(error) if isinstance(error, UserError) else system_line(error)


def _exit(line: str, code: int) -> None:
    print(one_line(line), file=sys.stderr)
    sys.exit(code)
