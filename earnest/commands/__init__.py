"""The commands of the command line, and what they share: `cli.py` names and runs them."""
