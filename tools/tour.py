"""Run examples/tour.ipynb on the finished run that is here, and keep its outputs in it.

python -m tools.tour, which 'make tour' calls, is to follow every run whose figures are committed: a test compares.
"""

import argparse
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from pipeline.core.cli import exit_on_user_error
from pipeline.core.errors import UserError
from pipeline.core.files import write_text
from pipeline.stages import paths

NOTEBOOK = Path("examples/tour.ipynb")
VERSION = 4  # of the notebook format
SECONDS = 600  # that one cell may take


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()

    def run() -> None:
        if not (paths.METRICS / "summary.json").is_file() or not paths.LATENTS.is_dir():
            raise UserError(f"there is no finished run here for {NOTEBOOK} to open: run 'make repro'")
        notebook = executed(NOTEBOOK, NOTEBOOK.parent)
        write_text(NOTEBOOK, nbformat.writes(notebook, VERSION) + "\n")
        print(f"outputs of this run: {NOTEBOOK}")

    exit_on_user_error(run)


def executed(path: Path, folder: Path) -> NotebookNode:
    """Return a notebook with the outputs of its cells, run with `folder` as the working directory.

    Nothing else of it changes, so that the same run gives the same file.

    Raises: UserError with the last line of the traceback when a cell fails.
    """
    notebook = nbformat.read(path, VERSION)
    metadata = dict(notebook.metadata)
    client = NotebookClient(
        notebook,
        timeout=SECONDS,
        record_timing=False,
        extra_arguments=["--log-level=ERROR"],  # it warns of ports on this machine, as every kernel uses them
        resources={"metadata": {"path": str(folder)}},
    )
    with TemporaryDirectory() as own:  # start-up files and settings of the user's own IPython would change outputs
        try:
            client.execute(env=os.environ | {"IPYTHONDIR": own})
        except CellExecutionError as error:
            raise UserError(f"{path}: {error.ename}: {error.evalue}: mend the cell, or the run that it opens") from None
    notebook.metadata = NotebookNode(metadata)  # the kernel writes the version of Python into it
    return notebook


if __name__ == "__main__":
    main()
