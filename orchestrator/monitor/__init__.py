"""Deciding: one active loop judges signals, looks at what is due, plans, and starts effects; others stand by."""
