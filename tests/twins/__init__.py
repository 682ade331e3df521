"""The same steps taken on PostgreSQL and on its simulation, and a checker of what they leave behind.

Two things are proved at once: that the program's statements keep their promises on a real server, whatever is done in
whatever order; and that the simulated one does the same, answer by answer and row by row.
"""
