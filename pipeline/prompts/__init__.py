"""Prompt sets: read them from files or the hub, clean them, and divide them without leaks."""
