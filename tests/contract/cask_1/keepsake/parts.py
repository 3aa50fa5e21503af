"""A module of the plugin's own."""


def word():
    return "keep"
