"""Commands that are no stage: python -m tools.NAME, from the root of the project."""
