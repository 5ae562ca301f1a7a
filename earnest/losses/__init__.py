"""Losses; each returns the loss and the signals that come from where it is computed."""
