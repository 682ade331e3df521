"""Deliberate bugs: a private copy of the checkout, one change in it, and the tests that have to notice."""
