"""Attacks on the real server, counted from outside, beside callers who mean well."""
