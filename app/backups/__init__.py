"""Backups: what only this machine has, in one archive made while the service runs."""
