"""Answers that are kept: what was predicted once for the same bytes, params, model and form is not predicted again."""
