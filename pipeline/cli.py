"""How every command of this project starts and ends: arguments, fixed exit codes, one line per error."""

import argparse
import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import FileError, UserError

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
_ITEM_HELP = {
    "point": "hook point, one of extract.points in params.yaml",
    "variant": "SAE variant, one of sae.variants in params.yaml",
}


def run_stage(main: Callable[..., None], doc: str | None, *items: str) -> None:
    """Run a pipeline stage as a program; `items` are its positional arguments, handed to `main`.

    Under DVC they are in the name of the stage, and not in its command: what params.yaml says reaches no shell.
    Checks the whole of params.yaml first, so that a misspelt key of a late stage does not wait for the
    early ones. Exits with 0, with 2 after one line on stderr for what a user can mend, or with 130 after
    Ctrl-C. Anything else is a bug and keeps its traceback.
    """
    parser = argparse.ArgumentParser(
        description=f"{(doc or '').strip()}\n\nReads params.yaml and the files of earlier stages below the "
        "current directory; 'dvc repro' runs it when it is needed.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for item in items:
        parser.add_argument(item, help=_ITEM_HELP[item])
    under_dvc = _items_from_dvc(Path(sys.argv[0]).stem)
    arguments = vars(parser.parse_args(under_dvc if len(sys.argv) == 1 else None))

    def run() -> None:
        from pipeline.params.root import check_params_file

        params = check_params_file()
        allowed = {"point": params.extract.points, "variant": list(params.sae.variants)}
        for item, name in arguments.items():
            if name not in allowed[item]:
                raise UserError(f"{item} {name!r} is not in params.yaml: it has {', '.join(allowed[item])}")
        start = time.monotonic()
        main(**arguments)
        # not at the top: it imports pyarrow, which --help can do without
        from pipeline.timings import record

        record(Path(sys.argv[0]).stem, list(arguments.values()), time.monotonic() - start)

    exit_on_user_error(run)


def _items_from_dvc(stage: str) -> list[str]:
    """The items of the matrix stage that DVC runs, which it names STAGE@POINT-VARIANT; none when it runs no such."""
    name, _, items = os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")
    return items.split("-") if name == stage and items else []


def exit_on_user_error(action: Callable[[], object]) -> None:
    """Call `action`; turn what a user can mend into one line on stderr and exit code 2."""
    try:
        action()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        line = _user_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        sys.exit(EXIT_USER_ERROR)


def _user_line(error: Exception) -> str | None:
    if isinstance(error, UserError):
        text = f"{error.what}: run 'dvc repro' to make it" if isinstance(error, FileError) else str(error)
        return " ".join(text.split())
    if any(_is_disk_full(cause) for cause in _chain(error)):
        return (
            f"the disk of {os.getcwd()} is full (or over its quota): free some space and run again; "
            "finished files of earlier stages are kept"
        )
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_disk_full(error: BaseException) -> bool:
    # safetensors and pyarrow wrap the system's error; only their text keeps it
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in str(error)
