"""Heartbeats of processes, and the watchdogs that end processes that hang."""
