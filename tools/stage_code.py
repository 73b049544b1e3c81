"""What a stage's module imports and reads, found in its source: to compare with what dvc.yaml says."""

import ast
from pathlib import Path

from pipeline.params.sae import SharedParams

ROOT = Path(__file__).parents[1]
ALL_PARAMS = "pipeline.params.root"
# they decide nothing of what a stage writes: one checks the other sections before it starts, one keeps how long it
# took, these say how it ends and what is said meanwhile, and two packages name, for others, what files of theirs hold
ASIDE = {ALL_PARAMS, "pipeline.stages.timings", "pipeline.activations", "pipeline.sae"}
ASIDE |= {f"pipeline.core.{name}" for name in ("cli", "ending", "environment", "errors", "progress", "system_errors")}
# what the hub gives is checked against the lock by every stage but the two that ask it first, so how it is asked
# decides nothing of what the others write
HUB, ASKING_THE_HUB = "pipeline.core.hub", {"pipeline.stages.download", "pipeline.stages.fetch_model"}
# functions that read several keys of params.yaml: which
READERS = {"read_variant": {*(f"sae.{key}" for key in SharedParams.model_fields), "sae.variants.*"}}


def imported_files(module: str) -> set[str]:
    """The project's files that importing `module` runs, itself included, as paths from the root.

    Packages whose __init__.py holds only a docstring are left out.
    """
    found: set[str] = set()
    aside = ASIDE - {ALL_PARAMS} if module == "pipeline.stages.check_params" else ASIDE
    if module not in ASKING_THE_HUB:
        aside = aside | {HUB}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        file = _file_of(name)
        if file is None or file in found or name in aside:
            continue
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        if not file.endswith("__init__.py") or len(tree.body) > 1:
            found.add(file)
        waiting += [".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)]
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def read_keys(module: str) -> set[str]:
    """The keys of params.yaml that a stage's module reads; `*` stands for what an f-string fills in."""
    tree = ast.parse((ROOT / str(_file_of(module))).read_text(encoding="utf-8"))
    keys: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            keys |= {_key(node.args[0])} if node.func.id == "read" else READERS.get(node.func.id, set())
    return keys


def _key(argument: ast.expr) -> str:
    if isinstance(argument, ast.Constant):
        return str(argument.value)
    assert isinstance(argument, ast.JoinedStr), "read() takes a literal key"
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in argument.values)


def _file_of(module: str) -> str | None:
    path = Path(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.parts[0] == "pipeline" and (ROOT / candidate).is_file():
            return candidate.as_posix()
    return None
