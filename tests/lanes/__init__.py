"""The lanes: long proofs of the promises, each a command of its own. See `registry.py` for what each one proves."""
