"""Training codecs: what a run of one has beside what every run has."""
