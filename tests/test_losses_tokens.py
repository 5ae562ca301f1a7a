"""The chunked linear cross-entropy: against torch's own, on heads of several blocks with a vocabulary inside."""

import pytest
import torch
import torch.nn.functional as F

from earnest.data.batch import Batch
from earnest.data.masks import IGNORE
from earnest.losses import tokens
from earnest.losses.tokens import score
from earnest.models.system import Head, Output
from earnest.streams import Codebook

D, TEXT, AUDIO = 16, 50, 12


class TwoStreams(torch.nn.Module):
    """Hidden states as leaves; text rows frozen, audio rows trained behind them, one output layer for both
    codebooks."""

    def __init__(self, dtype=torch.float32, prior=False):
        super().__init__()
        torch.manual_seed(0)
        self.dtype = dtype
        self.prior_2V = torch.randn(2, TEXT + AUDIO) if prior else [None, None]
        self.hidden_PD = torch.nn.Parameter(torch.randn(20, D))
        self.text_VD = torch.nn.Parameter(torch.randn(TEXT, D), requires_grad=False)
        self.audio_VD = torch.nn.Parameter(torch.randn(AUDIO, D))

    def outputs(self):
        states_PD, blocks = self.hidden_PD.to(self.dtype) * 1.0, (self.text_VD, self.audio_VD)
        return {Codebook(c): Output(states_PD, Head(blocks, TEXT, AUDIO, self.prior_2V[c])) for c in range(2)}

    def rows(self, batch, codebook):
        targets_P = batch.audio_targets_BSC[batch.exists_BS][:, codebook]
        counts_P = targets_P != IGNORE
        logits_NV = self.hidden_PD[counts_P] @ torch.cat([self.text_VD, self.audio_VD]).T
        return logits_NV if self.prior_2V[codebook] is None else logits_NV + self.prior_2V[codebook], targets_P[
            counts_P
        ]


def batch_of(seed=0):
    random = torch.Generator().manual_seed(seed)
    exists_BS = torch.arange(12)[None] < torch.tensor([12, 8])[:, None]
    targets_BSC = torch.randint(0, AUDIO, (2, 12, 2), generator=random)
    targets_BSC[torch.rand(targets_BSC.shape, generator=random) < 0.3] = IGNORE
    tokens_BSC = torch.randint(0, AUDIO, (2, 12, 2), generator=random)
    text_BS = torch.zeros(2, 12, dtype=torch.long)
    return Batch(
        torch.arange(2), exists_BS, text_BS, tokens_BSC, exists_BS, torch.full_like(text_BS, IGNORE), targets_BSC
    )


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("chunk_logits", [1, 3 * (TEXT + AUDIO), 2**24])
def test_value_gradients_and_sums_equal_torchs_own(monkeypatch, chunk_logits, prior):
    monkeypatch.setattr(tokens, "CHUNK_LOGITS", chunk_logits)
    model, batch, scales = TwoStreams(prior=prior), batch_of(), {Codebook(0): 0.3, Codebook(1): 2.0}
    loss, sums = score(model.outputs(), batch, scales)
    (loss * 1.7).backward()
    ours = [model.hidden_PD.grad.clone(), model.audio_VD.grad.clone()]
    assert model.text_VD.grad is None
    model.zero_grad()
    expected = 0
    for c, (stream, scale) in enumerate(scales.items()):
        logits_NV, target_N = model.rows(batch, c)
        full = F.cross_entropy(logits_NV, target_N + TEXT, reduction="sum")
        within_N = F.cross_entropy(logits_NV[:, TEXT:], target_N, reduction="none")
        expected = expected + scale * full
        torch.testing.assert_close(sums[stream].full_ce, full.detach())
        torch.testing.assert_close(sums[stream].ce, within_N.sum().detach())
        torch.testing.assert_close(sums[stream].ce_B.sum(), within_N.sum().detach())
        assert sums[stream].counted_B.sum() == len(target_N)
        p_NV = logits_NV[:, TEXT:].softmax(-1)
        torch.testing.assert_close(sums[stream].entropy, -(p_NV * p_NV.log()).sum().detach())
        assert sums[stream].correct == (p_NV.argmax(-1) == target_N).sum()
        inputs_N = batch.tokens_BSC[batch.exists_BS][:, c][batch.audio_targets_BSC[batch.exists_BS][:, c] != IGNORE]
        assert sums[stream].copied == (p_NV.argmax(-1) == inputs_N).sum()
    torch.testing.assert_close(loss, expected)
    (expected * 1.7).backward()
    torch.testing.assert_close(ours, [model.hidden_PD.grad, model.audio_VD.grad])


def test_under_bf16_the_products_are_rounded_and_the_rows_gradient_is_added_up_in_fp32():
    """Hidden states in bf16, or in fp32 under autocast, as where the residual stream is fp32."""
    found = []
    for dtype, autocast in ((torch.float32, False), (torch.bfloat16, False), (torch.float32, True)):
        model, batch = TwoStreams(dtype), batch_of()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss, _ = score(model.outputs(), batch, {Codebook(0): 0.1, Codebook(1): 0.2})
        loss.backward()
        found.append((loss.detach(), model.hidden_PD.grad, model.audio_VD.grad))
    for rounded in found[1:]:
        assert rounded[0].dtype == torch.float32
        for one, exact in zip(rounded, found[0], strict=True):
            assert one.dtype == torch.float32 and 0 < (one - exact).norm() < 0.02 * exact.norm()


def test_a_stream_that_is_not_asked_for_gives_no_gradient_but_its_sums():
    model, batch = TwoStreams(), batch_of()
    loss, sums = score(model.outputs(), batch, {Codebook(0): 1.0})
    loss.backward()
    only_second_P = (batch.audio_targets_BSC[batch.exists_BS] != IGNORE).long() @ torch.tensor([2, 1]) == 1
    assert only_second_P.any() and not model.hidden_PD.grad[only_second_P].any()
    assert sums[Codebook(1)].ce > 0


def test_a_batch_in_which_nothing_counts_still_has_a_graph():
    model, batch = TwoStreams(), batch_of()
    batch.audio_targets_BSC.fill_(IGNORE)
    loss, sums = score(model.outputs(), batch, {Codebook(0): 1.0})
    loss.backward()
    assert loss.item() == 0 and not sums and not model.hidden_PD.grad.any()


def test_generation_sees_the_streams_own_ids():
    model = TwoStreams()
    output = model.outputs()[Codebook(0)]
    logits = output.head.logits(output.states_PD)
    torch.testing.assert_close(logits, model.hidden_PD @ model.audio_VD.T)


@pytest.mark.parametrize(("first_id", "ids"), [(0, None), (0, 20), (30, 25), (TEXT, AUDIO), (TEXT + 2, 3)])
def test_generation_reads_the_rows_of_a_streams_own_vocabulary_only(first_id, ids):
    model = TwoStreams(prior=True)
    head = Head((model.text_VD, model.audio_VD), first_id, ids, model.prior_2V[0])
    every_NV = model.hidden_PD @ torch.cat(head.blocks).T + model.prior_2V[0]
    torch.testing.assert_close(head.logits(model.hidden_PD), every_NV[:, head.own])
    assert len(head.own_rows_VD) == (ids or TEXT + AUDIO)
