"""Drivers: each talks to one outside service and carries out effects against it."""
