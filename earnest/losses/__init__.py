"""Losses; each returns (loss, signals)."""
