"""examples/tour.ipynb: its cells run on any finished run, and the outputs in it are those of the committed figures."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import nbformat
import pytest
from helpers import working_in
from nbformat import NotebookNode

from pipeline.core.errors import UserError
from tools import tour
from tools.stage_code import ROOT

MOST_BYTES = 200_000  # of the notebook with its outputs


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: NotebookNode) -> str:
    """All that the cells print."""
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "\n".join(output["text"] if "text" in output else output["data"]["text/plain"] for output in outputs)


def check_is_complete(notebook: NotebookNode, metrics: Path) -> None:
    """Check that every cell ran, and that the last tables say what the metrics do."""
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    summary, probes = (json.loads((metrics / f"{name}.json").read_text()) for name in ("summary", "probes"))
    point, balanced = summary["sae_point"], probes["balanced"]
    rows = [line.split() for line in shown(notebook).splitlines()]
    for reads in ("text", point):
        for arm, figures in balanced[reads].items():
            wanted = [arm, reads, *(f"{figures[name]:.4f}" for name in ("auroc", "auroc_low", "auroc_high"))]
            assert wanted in rows, f"{arm} at {reads}: run 'make tour' after a run whose figures changed"
    assert any("image/png" in output.get("data", {}) for cell in code_cells(notebook) for output in cell.outputs)


def test_the_tour_runs_on_any_finished_run(small_run: Path, tmp_path: Path) -> None:
    for name in ("data", "metrics", "models"):
        (tmp_path / name).symlink_to(small_run / name)
    (tmp_path / "examples").mkdir()
    check_is_complete(tour.executed(ROOT / tour.NOTEBOOK, tmp_path / "examples"), small_run / "metrics")


def test_its_outputs_are_of_the_committed_figures_and_small() -> None:
    text = (ROOT / tour.NOTEBOOK).read_text()
    check_is_complete(nbformat.reads(text, tour.VERSION), ROOT / "metrics")
    assert len(text) < MOST_BYTES
    assert str(Path.home()) not in text and "/tmp/" not in text


def test_without_a_run_there_is_one_line(tmp_path: Path) -> None:
    stderr = io.StringIO()
    with (
        working_in(tmp_path),
        mock.patch("sys.argv", ["tour"]),
        redirect_stderr(stderr),
        pytest.raises(SystemExit) as ended,
    ):
        tour.main()
    assert ended.value.code == 2
    assert stderr.getvalue() == (
        "error: there is no finished run here for examples/tour.ipynb to open: run 'make repro'\n"
    )


def test_a_cell_that_fails_is_one_line(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("[][3]")])
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    with pytest.raises(UserError, match=r"wrong\.ipynb: IndexError: list index out of range: mend the cell"):
        tour.executed(tmp_path / "wrong.ipynb", tmp_path)
