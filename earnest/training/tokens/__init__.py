"""Training language models of audio tokens: what a run of one has beside what every run has."""
