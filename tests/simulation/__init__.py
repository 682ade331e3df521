"""The simulation: the program's real monitor, drivers and handlers on a simulated clock, network, database and store.

One thread, one seed: whatever is left to chance is drawn from the seed, so a seed and a commit repeat a run exactly.
"""
