"""Tools for people who write a model with code: begin one, serve it while it is written, test it."""
