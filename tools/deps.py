"""Write what follows from other files.

These are: into dvc.yaml, the code files that each stage depends on, and what plots look like; into docs/reruns.md, what
a change of code reruns; and into pipeline/params/default.yaml, the default params as the report knows them.
"""

import io
import re
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.params.base import PARAMS_FILE
from pipeline.report.plots import PLOTS, Plot
from tools.stage_code import ROOT, imported_files

RERUNS = Path("docs/reruns.md")
# The report names the params that differ from the default. It cannot ask params.yaml, which is what 'dvc exp run', a
# script of runs/ or an editor has changed by then, nor git, since an installed package has none: so a copy is made.
DEFAULT = Path("pipeline/params/default.yaml")
_CODE = re.compile(r"      - pipeline/\S+\.py")
# an entry of `plots`: its indentation, file, what a matrix fills in, and the lines below it
_PLOT = re.compile(r"(?m)^( +)- metrics/plots/(\w+)(/\$\{item\.\S+)?\.csv:\n((?:\1    .*\n)*)")
_LOOK = ("title", "template", "x", "y", "x_label", "y_label")


def with_code_lists(text: str) -> str:
    """The text of dvc.yaml in which every stage's `deps` list the project's files that its module imports."""
    lines: list[str] = []
    stage, listed = "", False
    for line in text.split("\n"):
        if match := re.fullmatch(r"  (\w+):", line):
            stage, listed = match[1], False
        if not _CODE.fullmatch(line):
            lines.append(line)
        elif not listed:
            lines += [f"      - {file}" for file in sorted(imported_files(f"pipeline.stages.{stage}"))]
            listed = True
    return "\n".join(lines)


def with_plots(text: str) -> str:
    """The text of dvc.yaml in which the plots have the titles, templates and axes of `pipeline/report/plots.py`.

    One that a matrix makes is described in its stage, all others in the list at the end, once for all stages.
    """

    def described(entry: re.Match[str]) -> str:
        indent, name, item, below = entry.groups()
        lines = [line for line in below.splitlines() if line.split(":")[0].strip() not in _LOOK]
        if item or len(indent) == 2:
            lines += [f"{indent}    {line}" for line in _look(PLOTS[name], item is not None)]
        return "\n".join([entry[0].split("\n")[0], *lines, ""])

    return _PLOT.sub(described, text)


def _look(plot: Plot, of_item: bool) -> list[str]:
    title = plot.title + (", ${item.variant} at ${item.point}" if of_item else "")
    return [f"{key}: {title if key == 'title' else getattr(plot, key)}" for key in _LOOK]


def reruns(text: str) -> str:
    """docs/reruns.md for a text of dvc.yaml: for each folder of pipeline/, the stages that a change there reruns."""
    stages = re.findall(r"(?m)^  (\w+):\n    desc:", text)
    code = {stage: imported_files(f"pipeline.stages.{stage}") for stage in stages}
    files = sorted({file for each in code.values() for file in each})
    folders = sorted({Path(file).parent.as_posix() for file in files})
    rows = []
    for folder in folders:
        inside = [file for file in files if Path(file).parent.as_posix() == folder]
        if folder == "pipeline/stages":
            inside = [file for file in inside if Path(file).stem not in stages]
        sets = [{stage for stage in stages if file in code[stage]} for file in inside]
        every, any_of_them = set.intersection(*sets), set.union(*sets)
        rows.append(f"| `{folder}/` | {_names(every, stages)} | {_names(any_of_them - every, stages)} |")
    counts = [f"| `{stage}` | {len(code[stage])} |" for stage in stages]
    return "\n".join(
        [
            "# What a change of code reruns",
            "",
            "`make deps` makes this page from what the stages import, and a test compares. DVC runs a stage again when",
            "any file that it imports changes, and then the stages that read its output, if that changes. So a new",
            "import costs reruns.",
            "",
            "Stages in the second column run again when any file of the folder changes. Those in the third depend on",
            "some of its files only.",
            "",
            "| a change in | always reruns | may rerun, depending on the file |",
            "|---|---|---|",
            *rows,
            "",
            "A stage's own module, `pipeline/stages/NAME.py`, reruns that stage.",
            "",
            "| stage | code files it depends on |",
            "|---|---|",
            *counts,
            "",
        ]
    )


def default_params(text: str) -> str:
    """pipeline/params/default.yaml for a text of params.yaml: its values alone, so that a comment reruns no report."""
    out = io.StringIO()
    out.write("# Made by 'make deps' from params.yaml.\n")
    YAML().dump(YAML(typ="safe").load(text), out)
    return out.getvalue()


def _names(found: set[str], order: list[str]) -> str:
    if len(found) == len(order):
        return "every stage"
    return ", ".join(stage for stage in order if stage in found) or "none"


def main() -> None:
    text = with_plots(with_code_lists((ROOT / "dvc.yaml").read_text(encoding="utf-8")))
    (ROOT / "dvc.yaml").write_text(text, encoding="utf-8")
    (ROOT / RERUNS).parent.mkdir(exist_ok=True)
    (ROOT / RERUNS).write_text(reruns(text), encoding="utf-8")
    params = (ROOT / PARAMS_FILE).read_text(encoding="utf-8")
    (ROOT / DEFAULT).write_text(default_params(params), encoding="utf-8")


if __name__ == "__main__":
    main()
