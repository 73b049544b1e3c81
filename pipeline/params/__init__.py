"""params.yaml as typed, validated objects: one module a part, so that a stage depends only on the keys it reads."""
