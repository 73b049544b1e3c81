"""Start every stage the same way: read its arguments, check the whole of params.yaml, and note how long it took."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import UserError
from pipeline.params.root import check_params_file

_ITEM_HELP = {
    "point": "hook point, one of extract.points in params.yaml",
    "variant": "SAE variant, one of sae.variants in params.yaml",
}


def run_stage(main: Callable[..., None], doc: str | None, *items: str) -> None:
    """Run a pipeline stage as a program. `items` are its positional arguments, passed to `main`.

    Under DVC the items are in the name of the stage, not in its command, so that nothing in params.yaml reaches a
    shell. The whole of params.yaml is checked first, so that a misspelt key of a late stage does not wait for the early
    ones. The exit code is 0; 2 after one line on stderr for what a user can mend; 130 after Ctrl-C, 143 after SIGTERM,
    129 after SIGHUP. Anything else is a bug and keeps its traceback.
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
        params = check_params_file()
        allowed = {"point": params.extract.points, "variant": list(params.sae.variants)}
        for item, name in arguments.items():
            if name not in allowed[item]:
                raise UserError(f"{item} {name!r} is not in params.yaml: it has {', '.join(allowed[item])}")
        start = time.monotonic()
        main(**arguments)
        from pipeline.stages.timings import record  # imports pyarrow, which --help can do without

        record(Path(sys.argv[0]).stem, list(arguments.values()), time.monotonic() - start)

    exit_on_user_error(run)


def _items_from_dvc(stage: str) -> list[str]:
    """Return the items of the matrix stage that DVC runs, which it names STAGE@POINT-VARIANT; none for other stages."""
    name, _, items = os.environ.get("DVC_STAGE", "").rpartition(":")[2].partition("@")
    return items.split("-") if name == stage and items else []
