"""Answers that are kept: what was predicted once for the same bytes, wishes, model and form is not predicted again."""
