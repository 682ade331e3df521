"""Callers of the web process that a test cannot be: raw bytes, many connections at once, crowds of event streams.

The load and the crowd are programs of their own, so that what they cost is not the service's.
"""
