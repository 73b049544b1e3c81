"""What tells arms apart, and what they are called: in metrics, in folders of classifiers, and by people."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

NO_POINTS = "text"  # where metrics have the arms that read no activations
USUAL_K = 16  # the number of features that is looked at in every setting


@dataclass(frozen=True)
class ArmId:
    """One arm: a way to detect the target, on certain inputs.

    name: of the list of arms that it is in, such as `sae`.
    points: whose activations it reads; none for arms that read texts alone.
    variant: of the SAE that it reads, or is a control of.
    k: how many features its classifier may use; None: all.
    """

    name: str
    points: tuple[str, ...] = ()
    variant: str | None = None
    k: int | None = None

    @property
    def classifier(self) -> str:
        """The name of its classifier's folder, among those of the same points and variant, such as `sae-k16`."""
        return self.name if self.k is None else f"{self.name}-k{self.k}"

    @property
    def points_key(self) -> str:
        """The key in metrics of all arms with the same points."""
        return points_key(self.points)

    @property
    def key(self) -> str:
        """Its own key below that, such as `sae-k16_batch_topk`."""
        return self.classifier if self.variant is None else f"{self.classifier}_{self.variant}"

    def of_all_features(self) -> "ArmId":
        """The same arm, where it may use all features."""
        return replace(self, k=None)

    def __str__(self) -> str:
        """What people read, such as `sae-k16_batch_topk @ resid_post.2`."""
        return shown_name(self.points_key, self.key)


def points_key(points: Sequence[str]) -> str:
    """The key in metrics of all arms that read the activations at these points."""
    return " + ".join(points) or NO_POINTS


def shown_name(points: str, key: str) -> str:
    """What the arm with these two keys in metrics is called in plots and in the report."""
    return key if points == NO_POINTS else f"{key} @ {points}"


def nested(found: Iterable[tuple[ArmId, Any]]) -> dict[str, dict[str, Any]]:
    """What was found of each arm, by its two keys, as metrics have it."""
    result: dict[str, dict[str, Any]] = {}
    for arm, value in found:
        result.setdefault(arm.points_key, {})[arm.key] = value
    return result


def of_arm(results: Mapping[str, Mapping[str, Any]], arm: ArmId) -> Any:
    """What such metrics have of an arm."""
    return results[arm.points_key][arm.key]
