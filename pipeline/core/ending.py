"""End a program before its time: because a signal asks for it, or because what started it has died."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}
# variables that DVC, make and torchrun set for what they start, which is of no use without them
STARTERS = {"DVC_STAGE", "MAKELEVEL", "TORCHELASTIC_RUN_ID"}
_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_CLEAN_UP = 0.5, 3.0


def exit_code(number: int) -> int:
    """Return the exit code that shells give to a program that a signal ended."""
    return 128 + number


def end_at_once_on_signals() -> None:
    """End with one line and its exit code as soon as a signal arrives: for when there is nothing to clean up."""

    def end(number: int, _: FrameType | None) -> None:
        # not print(): this may have come in the middle of one
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{STOPPING[signal.Signals(number)]}\n".encode())
        os._exit(exit_code(number))

    _handle(end)


@contextmanager
def raising_on_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt when a signal arrives within the block, so that whatever is open is closed and removed.

    Yields a list to which the signals are added: C code may turn the exception into one of its own.
    """
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    before = _handle(stop)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _handle(handler: Callable[[int, FrameType | None], None]) -> dict[signal.Signals, Any]:
    """Set a handler for the signals that are not ignored (nohup ignores some). Return the earlier handlers."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handled = [number for number in STOPPING if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    return {number: signal.signal(number, handler) for number in handled}


def end_with_parent(parent: int) -> None:
    """End this process soon after its parent, the process with the id `parent`."""
    _watch(lambda: os.getppid() != parent)


def end_with_starter() -> None:
    """End this process soon after the `dvc`, `make` or `torchrun` that started it, however that ended.

    A shell or launcher in between may live on, so this watches the parents of all processes that such a program
    started. A process that was started by hand, with none of these programs involved, outlives its shell.
    """
    if not STARTERS & os.environ.keys():
        return
    import psutil  # takes a moment

    parents: list[tuple[psutil.Process, int]] = []
    process: psutil.Process | None = psutil.Process()
    try:
        while process is not None and STARTERS & process.environ().keys():
            parents.append((process, process.ppid()))
            process = process.parent()
    except psutil.Error:  # a process of somebody else, or one that has just ended: the next look will tell
        pass

    def is_left_alone() -> bool:
        try:
            return any(process.ppid() != parent for process, parent in parents)
        except psutil.NoSuchProcess:
            return True

    _watch(is_left_alone)


def _watch(is_left_alone: Callable[[], bool]) -> None:
    """Check now and then whether this process is left alone. Then end as on SIGTERM, or by force if that takes long."""

    def look() -> None:
        while not is_left_alone():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # sent to the process, it might not wake the main thread
        time.sleep(_SECONDS_TO_CLEAN_UP)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=look, name="ends with its parent", daemon=True).start()
