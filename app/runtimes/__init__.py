"""Models: find, build, load, run. torch lives in this package and nowhere else; nobody here knows Flask or sockets."""
