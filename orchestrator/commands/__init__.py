"""The command line, one file or folder for each group of commands; nobody else in the house imports it."""
