"""Benchmarks for machines that tests do not have: their logic runs here at toy size."""

import numpy as np

from benchmarks import corpus, gpu
from earnest.data.clips import Clips
from earnest.data.layouts.chatml import Cloning
from earnest.data.store import CodeTable
from earnest.data.vary import Variation


def test_the_gpu_script_runs_without_a_gpu():
    table = {measured.name: measured for measured in gpu.measure([], True, 989.0)}
    assert {"higgs-lora", "higgs", "dia", "mot", "dac encode", "dac decode"} <= table.keys()
    for measured in table.values():
        assert measured.seconds > 0
    steps = [table[name] for name in ("higgs-lora", "higgs", "dia", "mot")]
    assert all(step.syncs is not None and step.positions_per_s for step in steps)


def test_a_corpus_holds_no_codes_and_lays_nothing_out_before_its_first_batch(tmp_path, monkeypatch):
    table = CodeTable([corpus.stored(tmp_path, 2000)], np.arange(2000), Clips.of(corpus.clips(2000)), {"codebooks": 8})
    higgs = corpus.model()
    laid = []
    monkeypatch.setattr(type(higgs), "lay_out", lambda self, *given: laid.append(given))
    made = corpus.corpus_of(table, higgs)
    cloning = corpus.corpus_of(table, higgs, Cloning(table, Variation(), 0.5, 10))
    assert not laid and len(made) == len(cloning) == 2000
    monkeypatch.undo()
    plan = made.plan(seed=0)
    batch = made.batch(plan[0], seed=0)
    lengths = [made.lengths[clip] for clip in plan[0]]
    assert batch.exists_BS.sum(1).tolist() == lengths  # computed without being laid out, and right
    behind = cloning.batches(most=10)  # as evaluation sees them: each behind a reference
    assert sum(batch.exists_BS.sum().item() for batch in behind) == sum(
        cloning.lengths[clip] for clip in range(0, 2000, 200)
    )
    assert not table[0].codes_CT.flags.owndata and table[0].codes_CT.dtype == np.uint16
