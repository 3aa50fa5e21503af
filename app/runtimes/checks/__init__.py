"""Checks of a model's answers before and while it serves."""
