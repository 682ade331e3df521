"""Pages: HTML rendered here with the present state in it, readable without scripts."""
