"""Cutting uploads into clips over HTTP, in the words of the clients that did so before this program."""
