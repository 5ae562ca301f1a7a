"""Anybody's training loop: looked at before it trains (`check`)."""
