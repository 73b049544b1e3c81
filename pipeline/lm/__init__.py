"""Language models: load them from locked files, make tokens for them, and read or change what passes their blocks."""
