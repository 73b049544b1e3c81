"""Language models: loading them from locked files, their tokens, and reading and changing what passes their blocks."""
