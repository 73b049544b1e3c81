"""The language model: made here, fetched or found, then locked by the hashes of its files and loaded."""
