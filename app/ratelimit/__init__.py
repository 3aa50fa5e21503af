"""Counts of requests that all processes share."""
