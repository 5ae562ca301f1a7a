"""Experiments on a model, its batches and its optimizer, cheap enough for every run; rules read their results
(`results.py`, `Run.probes`).

Each probe is a function that leaves model and random numbers as they were and returns the record that its rule needs.
`suite.at_start` and `suite.at_end` are those that a run of ours makes. This file imports nothing: rules read results
without torch.
"""
