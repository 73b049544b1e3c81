"""The one judge of the scores of all arms: metrics, intervals, paired differences."""
