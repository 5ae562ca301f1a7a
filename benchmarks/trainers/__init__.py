"""Public trainers, run as they were published: the measure of `earnest check SCRIPT` and `earnest.check`.

``python -m benchmarks.trainers --sources DIR [NAME ...]`` runs those whose sources lie in DIR (a folder each, as
`scripts.py` names it; not part of this repository), and adds what was found to `results.jsonl`;
``python -m benchmarks.trainers.table`` writes docs/check.md from it.
"""
