"""Everything that is compared, a file for each family of comparisons.

A new one is a function of the Scoreboard in one of these files, and a line in `pipeline/judging/compare.py`.
"""
