"""Benchmarks against other libraries and against the limit of the machine; never part of the tests."""

import pipeline.stages  # noqa: F401  (the same threads and quiet libraries as the stages have)
