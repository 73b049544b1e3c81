"""All comparisons of the arms, as metrics/probes.json has them."""

from typing import Any

from pipeline.judging.comparisons.balanced import balanced_metrics, k_aurocs
from pipeline.judging.comparisons.subsets import by_cluster, harmless, natural, where_tfidf_fails
from pipeline.judging.comparisons.trained_otherwise import in_setting, with_seeds
from pipeline.judging.label_noise import label_noise
from pipeline.judging.scoreboard import Scoreboard
from pipeline.judging.settings import FULL


def compare(board: Scoreboard) -> dict[str, Any]:
    """Metrics by setting or question; below that in most by an arm's points and name."""
    prompts = board.prompts
    results = {
        FULL: balanced_metrics(board),
        "natural": natural(board),
        "k": k_aurocs(board),
        "benign": harmless(board),
        "where_tfidf_fails": where_tfidf_fails(board),
        "by_cluster": by_cluster(board),
        "label_noise": {
            side: label_noise(prompts.labels[rows], prompts.groups[rows])
            for side, rows in (("train", prompts.train), ("test", prompts.test))
        },
    }
    results |= {setting: in_setting(board, setting) for setting in board.other_settings()}
    if len(board.prompts_by_seed) > 1:
        results["seeds"] = with_seeds(board)
    return results
