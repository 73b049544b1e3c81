"""Remove what earlier parameters left in folders that a stage depends on as a whole.

No stage owns the files of points and variants that are no longer asked for. But they lie in folders that a stage
depends on, or in git, so two equal runs would differ by them. They are removed only once the stage has new results: a
run that fails keeps them.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.stages import paths

_PLOTS = ("sae", "sae_density", "sae_l0", "interventions")


def remove_left_overs(points: Sequence[str], variants: Sequence[str]) -> None:
    """Remove scores, probes, metrics, plots and latents of other points and variants, at the end of evaluate."""
    remove_scores_and_stacks_of_others(points, variants)
    by_point_and_variant = [folder / "sae" for folder in (paths.PROBES, paths.METRICS)]
    by_point_and_variant += [paths.METRICS / "interventions", paths.LATENTS, *(paths.PLOTS / name for name in _PLOTS)]
    for folder in (paths.PROBES / "dense", *by_point_and_variant):
        _keep_only(folder, points)
    for folder in by_point_and_variant:
        for point in points:
            _keep_only(folder / point, variants)


def remove_scores_and_stacks_of_others(points: Sequence[str], variants: Sequence[str]) -> None:
    """Remove scores of other points and variants, at the end of probe_stacked, which depends on all scores there are.

    And the stacked classifiers that are on them.
    """
    stacked = paths.PROBES / "stacked"
    together = [*points, paths.ALL_POINTS] if len(points) > 1 else points
    _keep_only(paths.SCORES / "dense", points)
    _keep_only(stacked / "dense", together)
    for folder, kept in ((paths.SCORES / "sae", points), (stacked / "sae", together)):
        _keep_only(folder, kept)
        for each in kept:
            _keep_only(folder / each, variants)


def remove_probes_of_other_points(points: Sequence[str]) -> None:
    """Remove dense probes of other points, at the end of intervene, which depends on all dense probes there are."""
    _keep_only(paths.PROBES / "dense", points)


def remove_activations_of_other_points(points: Sequence[str]) -> None:
    """Remove activations at other points, at the end of extract, whose output is all activations there are."""
    for entry in paths.ACTIVATIONS.iterdir():
        if entry.is_dir() and entry.name not in points:
            shutil.rmtree(entry)


def _keep_only(folder: Path, names: Sequence[str]) -> None:
    """Remove all folders and files that have none of these names, with or without a suffix."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.name in names or (entry.is_file() and entry.stem in names):
            continue
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
