"""What makes the other figures doubtful."""

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.judging.arm import ArmId, of_arm, shown_name
from pipeline.judging.settings import FULL, SHUFFLED, SHUFFLES

# text arm, AUROC above which labels are given away, what the arm reads
GIVEAWAYS = (
    (ArmId("one_word"), 0.9, "the presence of a single word"),
    (ArmId("length_source"), 0.8, "the source and length of a prompt"),
)
CHANCE = 0.5


def warnings(results: Mapping[str, Any]) -> Iterator[str]:
    """Labels that are given away, controls that are not at chance, fits that may be better.

    results: as in metrics/probes.json.
    """
    for arm, limit, what in GIVEAWAYS:
        auroc = of_arm(results[FULL], arm)["auroc"]
        if auroc > limit:
            yield f"{what} alone gives AUROC {auroc:.3f}: it gives the labels away"
    for points, by_arm in results[SHUFFLED].items():
        for key, control in by_arm.items():
            error = control["auroc_std"] / SHUFFLES**0.5
            if control["auroc"] - 3 * error > CHANCE:
                yield (
                    f"{shown_name(points, key)} learns from permuted labels (AUROC {control['auroc']:.3f}, mean of "
                    f"{SHUFFLES}): something may leak"
                )
    at_edge = results["c_at_edge"]["at_edge"]
    if at_edge:
        yield (
            f"{len(at_edge)} of {results['c_at_edge']['classifiers']} classifiers, such as {at_edge[0]}, would take "
            "another C than may be tried"
        )
