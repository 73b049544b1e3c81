"""Prompt sets: reading them from anywhere, cleaning them, and dividing them without leaks."""
