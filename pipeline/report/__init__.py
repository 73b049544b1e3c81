"""Figures and the page that a person opens first."""
