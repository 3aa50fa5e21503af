"""Cask: a Flask app and a torch model in one Apache container. Imports nothing, so every process may import it."""

__version__ = "0.2.0"
