"""How fast the shipped program is, as ratios against a ceiling or a peer taken in the same run; never a timed test."""
