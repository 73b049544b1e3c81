"""All comparisons that are made of the arms' scores, setting by setting."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.errors import UserError
from pipeline.judging.judge import Judge, label_noise
from pipeline.judging.metrics import METRICS, THRESHOLD
from pipeline.judging.settings import FULL, SHUFFLED, SHUFFLES, Negatives, balanced
from pipeline.prompts.table import Prompts

Place = tuple[str, str]  # point, arm
UNSURE = 0.2  # TF-IDF is unsure of prompts with a probability within this of 0.5
AT_ANY_PREVALENCE = ("auroc", "average_precision", "tpr_at_fpr_0.1%", "tpr_at_fpr_1%", "tpr_at_fpr_5%")
DRAWN = ("tfidf", "length", "dense", "attention")  # beside the SAEs, of which curves are drawn
# text arm, AUROC above which labels are given away, what the arm reads
GIVEAWAYS = (
    ("one_word", 0.9, "the presence of a single word"),
    ("length_source", 0.8, "the source and length of a prompt"),
)
CHANCE = 0.5
_SIZED = re.compile(r"(.+)-k(\d+)(_.+)?")  # no variant has a dash in its name


class Evaluation:
    """Judges what the first seed's arms scored, and how far other seeds are from it."""

    def __init__(
        self,
        scores: pa.Table,
        prompts: dict[int, Prompts],
        *,
        negatives: Negatives,
        fewest: int,
        variants: list[str],
        resamples: int,
        confidence: float,
    ) -> None:
        """scores: a table of SCORES_SCHEMA; prompts: by seed, the main one first.

        Raises: UserError when an arm's scores are not of just the test prompts.
        """
        self.prompts = prompts
        self.variants = variants
        self.seed = next(iter(prompts))
        self.how = {"resamples": resamples, "confidence": confidence, "seed": self.seed}
        self.test = {seed: np.flatnonzero(each.test) for seed, each in prompts.items()}
        # rows of harmless prompts come after all others, so these are places within the scores
        self.chosen = {
            seed: np.searchsorted(self.test[seed], balanced(each, "test", negatives, fewest))
            for seed, each in prompts.items()
        }
        self.by_task = self._sorted(scores)
        self.arms = self.by_task[FULL, 0, self.seed]
        self.judge = self._judge(self.chosen[self.seed])

    def _sorted(self, scores: pa.Table) -> dict[tuple[str, int, int], dict[Place, np.ndarray]]:
        """Scores by (setting, draw, seed) and place: of the test prompts, then of the harmless ones."""
        ids = {seed: [each.ids[row] for row in np.flatnonzero(~each.train)] for seed, each in self.prompts.items()}
        names = ("setting", "draw", "seed", "point", "arm")
        columns = [scores[name].to_pylist() for name in names]
        found = scores["prompt_id"].to_pylist()
        values = scores["score"].to_numpy().astype(np.float64)
        result: dict[tuple[str, int, int], dict[Place, np.ndarray]] = {}
        start = 0
        while start < len(found):
            setting, draw, seed, point, arm = (column[start] for column in columns)
            end = start + len(ids.get(seed, ()))
            if end == start or found[start:end] != ids[seed]:
                raise UserError(
                    f"the scores of {arm} at {point} are not of the test prompts: run 'dvc repro' to score them again"
                )
            result.setdefault((setting, draw, seed), {})[point, arm] = values[start:end]
            start = end
        return result

    def _judge(self, places: np.ndarray) -> Judge:
        rows = self.test[self.seed][places]
        prompts = self.prompts[self.seed]
        return Judge(prompts.labels[rows], prompts.groups[rows], **self.how)  # type: ignore[arg-type]

    def results(self) -> dict[str, Any]:
        """Metrics by setting, point and arm."""
        result: dict[str, Any] = {FULL: self._balanced(), "natural": self._natural(), "k": self._sizes()}
        for setting in sorted({setting for setting, _, seed in self.by_task if seed == self.seed} - {FULL}):
            result[setting] = self._elsewhere(setting)
        result["benign"] = self._benign()
        result["where_tfidf_fails"] = self._where_tfidf_fails()
        result["by_cluster"] = self._by_cluster()
        if len(self.prompts) > 1:
            result["seeds"] = self._seeds()
        prompts = self.prompts[self.seed]
        result["label_noise"] = {
            side: label_noise(prompts.labels[rows], prompts.groups[rows])
            for side, rows in (("train", prompts.train), ("test", prompts.test))
        }
        return result

    def warnings(self) -> list[str]:
        """What makes the other figures doubtful: labels that are given away, and controls that are not at chance."""
        found = []
        chosen = self.chosen[self.seed]
        for arm, limit, what in GIVEAWAYS:
            auroc = self.judge.value("auroc", self.arms["text", arm][chosen])
            if auroc > limit:
                found.append(f"{what} alone gives AUROC {auroc:.3f}: it gives the labels away")
        for point, by_arm in self._elsewhere(SHUFFLED).items():
            for arm, control in by_arm.items():
                error = control["auroc_std"] / SHUFFLES**0.5
                if control["auroc"] - 3 * error > CHANCE:
                    found.append(
                        f"{arm} at {point} learns from permuted labels (AUROC {control['auroc']:.3f}, mean of "
                        f"{SHUFFLES}): something may leak"
                    )
        return found

    def difference(self, place: Place, baseline: Place) -> dict[str, float]:
        """Of AUROC on the balanced test prompts, paired."""
        chosen = self.chosen[self.seed]
        return self.judge.difference(self.arms[place][chosen], self.arms[baseline][chosen])

    def counts(self) -> dict[str, int]:
        return {"test_prompts": len(self.judge.labels), "test_targets": int(self.judge.labels.sum())}

    def _plain(self) -> Iterator[tuple[Place, np.ndarray]]:
        """The arms that are not one of many sizes."""
        return ((place, scores) for place, scores in self.arms.items() if not _SIZED.fullmatch(place[1]))

    def _balanced(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        chosen = self.chosen[self.seed]
        for place, scores in self._plain():
            point, arm = place
            found: dict[str, Any] = self.judge.metrics(scores[chosen], list(METRICS), ["auroc"])
            if place != ("text", "tfidf"):
                found["minus_tfidf"] = self.difference(place, ("text", "tfidf"))
            name, _, variant = arm.partition("_")
            if name == "sae" and variant in self.variants:
                found["minus_dense"] = self.difference(place, (point, "dense"))
                found["minus_attention"] = self.difference(place, (point, "attention"))
                found["minus_untrained"] = self.difference(place, (point, f"untrained_{variant}"))
            result.setdefault(point, {})[arm] = found
        return result

    def _natural(self) -> dict[str, Any]:
        places = np.arange(len(self.test[self.seed]))
        judge = self._judge(places)
        result: dict[str, Any] = {}
        for (point, arm), scores in self._plain():
            result.setdefault(point, {})[arm] = judge.metrics(scores[places], AT_ANY_PREVALENCE, ["average_precision"])
        return result

    def _benign(self) -> dict[str, Any]:
        """How often each arm takes a harmless prompt for the target, at the probability that accuracy and F1 take."""
        first = len(self.test[self.seed])
        result: dict[str, Any] = {"prompts": int((self.prompts[self.seed].sides == "benign").sum())}
        for (point, arm), scores in self._plain() if result["prompts"] else ():
            rate = float((scores[first:] >= THRESHOLD).mean())
            result.setdefault(point, {})[arm] = {"false_positive_rate": rate}
        return result

    def _sizes(self) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for row in self.k_frontier():
            result.setdefault(row["point"], {}).setdefault(row["arm"], {})[str(row["k"])] = row["auroc"]
        return result

    def _elsewhere(self, setting: str) -> dict[str, Any]:
        """AUROC of a setting: mean over its draws, with their standard deviation, or of its only one, with interval."""
        draws = [arms for (name, _, seed), arms in self.by_task.items() if name == setting and seed == self.seed]
        places = self.chosen[self.seed]
        if setting.startswith("without_"):
            sources = self.prompts[self.seed].sources[self.test[self.seed]]
            places = np.flatnonzero(sources == setting.removeprefix("without_"))
        judge = self._judge(places)
        result: dict[str, Any] = {}
        for point, arm in draws[0]:
            if len(draws) == 1:
                found = judge.metrics(draws[0][point, arm][places], ["auroc"], ["auroc"])
            else:
                values = [judge.value("auroc", arms[point, arm][places]) for arms in draws]
                found = {"auroc": float(np.mean(values)), "auroc_std": float(np.std(values, ddof=1))}
            result.setdefault(point, {})[arm] = found
        return result

    def _where_tfidf_fails(self) -> dict[str, Any]:
        """AUROC on the balanced test prompts of which TF-IDF is unsure, or wrong."""
        chosen = self.chosen[self.seed]
        scores = self.arms["text", "tfidf"][chosen]
        hard = (np.abs(scores - 0.5) < UNSURE) | ((scores >= 0.5) != self.judge.labels)
        labels = self.judge.labels[hard]
        counts = {"prompts": int(hard.sum()), "targets": int(labels.sum())}
        if len(set(labels)) < 2:
            return counts
        judge = self._judge(chosen[hard])
        result: dict[str, Any] = counts
        for (point, arm), values in self._plain():
            result.setdefault(point, {})[arm] = judge.metrics(values[chosen[hard]], ["auroc"], ["auroc"])
        return result

    def _by_cluster(self) -> dict[str, Any]:
        """AUROC of the target against each other cluster alone, over all test prompts."""
        prompts = self.prompts[self.seed]
        clusters = prompts.clusters[self.test[self.seed]]
        result: dict[str, Any] = {}
        for cluster in sorted(set(clusters.tolist()) - {prompts.target}):
            places = np.flatnonzero((clusters == prompts.target) | (clusters == cluster))
            judge = Judge(clusters[places] == prompts.target, places, resamples=0, confidence=0.5, seed=0)
            for (point, arm), scores in self._plain():
                by_arm = result.setdefault(point, {}).setdefault(arm, {})
                by_arm[str(cluster)] = judge.value("auroc", scores[places])
        return result

    def _seeds(self) -> dict[str, Any]:
        """Mean and standard deviation of the balanced AUROC over all seeds."""
        result: dict[str, Any] = {}
        for place, _ in self._plain():
            values = []
            for seed, prompts in self.prompts.items():
                chosen = self.chosen[seed]
                labels = prompts.labels[self.test[seed][chosen]]
                scores = self.by_task[FULL, 0, seed][place][chosen]
                values.append(float(METRICS["auroc"](labels, scores, np.ones((1, len(labels))))[0]))
            spread = {"auroc_mean": float(np.mean(values)), "auroc_std": float(np.std(values, ddof=1))}
            result.setdefault(place[0], {})[place[1]] = spread
        return result

    def roc(self) -> list[dict[str, Any]]:
        return self._curves(self.judge.roc)

    def precision_recall(self) -> list[dict[str, Any]]:
        return self._curves(self.judge.precision_recall)

    def reliability(self) -> list[dict[str, Any]]:
        return self._curves(self.judge.reliability)

    def _curves(self, curve: Any) -> list[dict[str, Any]]:
        chosen = self.chosen[self.seed]
        drawn = {*DRAWN, *(f"{arm}_{variant}" for variant in self.variants for arm in ("sae", "untrained"))}
        return [
            {"arm": _name(place)} | row
            for place, scores in self._plain()
            if place[1] in drawn
            for row in curve(scores[chosen])
        ]

    def k_frontier(self) -> list[dict[str, Any]]:
        """Balanced AUROC of the arms on k features."""
        rows = []
        for (point, arm), scores in self.arms.items():
            sized = _SIZED.fullmatch(arm)
            if sized:
                name = sized[1] + (sized[3] or "")
                found = self.judge.metrics(scores[self.chosen[self.seed]], ["auroc"], ["auroc"])
                values = {key: round(value, 4) for key, value in found.items()}
                rows.append({"point": point, "arm": name, "k": int(sized[2]), **values})
        return rows

    def scarcity(self) -> list[dict[str, Any]]:
        return self._by_number("scarce_", "train_prompts")

    def noise(self) -> list[dict[str, Any]]:
        return self._by_number("noise_", "percent_flipped")

    def _by_number(self, prefix: str, column: str) -> list[dict[str, Any]]:
        """AUROC of the settings whose name ends in a number."""
        settings = {setting for setting, _, seed in self.by_task if seed == self.seed and setting.startswith(prefix)}
        numbers = sorted((setting.removeprefix(prefix) for setting in settings), key=float)
        return [
            {"arm": _name((point, arm)), column: number, "auroc": round(found["auroc"], 4)}
            for number in numbers
            for point, by_arm in self._elsewhere(f"{prefix}{number}").items()
            for arm, found in by_arm.items()
        ]


def _name(place: Place) -> str:
    point, arm = place
    return arm if point == "text" else f"{arm} @ {point}"
