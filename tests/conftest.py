"""The same process settings for the tests as for the stages, before anything imports torch."""

import pipeline.stages  # noqa: F401
