"""The prediction log: aligned, counted, decoded whole, and shown in the report as it was written."""

import json

import pytest
import torch

from earnest.data.batch import collate
from earnest.data.masks import IGNORE
from earnest.data.row import Turn
from earnest.facts import Facts
from earnest.models.system import Head, Output
from earnest.monitors.predictions import log_predictions, predictions
from earnest.report.page import render
from earnest.rules.finding import Diagnosis
from earnest.run import RunWriter, read_run
from earnest.streams import Codebook
from tests.equipment.tiny import CODEBOOKS, random_batch, random_codes, tiny_higgs
from tests.equipment.wrapped import Wrapped

ARABIC = "وَمِنْ ثُمَّ قَالُوا"


@pytest.fixture(scope="module")
def model():
    return tiny_higgs()


def row_of(rows, clip: int, stream: str) -> dict:
    [row] = [row for row in rows if (row["clip"], row["stream"]) == (clip, stream)]
    return row


def test_rows_count_what_the_loss_counts(model):
    batch = random_batch(model, frames=(5, 9, 30))
    rows = predictions(model, batch)
    assert len(rows) == 3 * (1 + CODEBOOKS)
    for codebook in range(CODEBOOKS):
        for clip, frames in enumerate((5, 9, 30)):
            row = row_of(rows, clip, f"codebook_{codebook}")
            # S = T + 2 + (C - 1) positions, T + 1 of them count
            assert row["counted"] == frames + 1 and row["masked"] == CODEBOOKS
            targets = batch.audio_targets_BSC[clip, :, codebook]
            valid = targets[targets != IGNORE].tolist()
            assert row["first_target"] == valid[:10] and row["last_target"] == valid[-10:]
            assert row["last_target"][-1] == model.eos_id
            assert row["target_eos_frac"] == pytest.approx(1 / (frames + 1), abs=1e-4) and row["target_bos_frac"] == 0
            assert row["predicted_codes_frac"] + row["predicted_bos_frac"] + row["predicted_eos_frac"] == pytest.approx(
                1, abs=1e-3
            )


def test_predictions_are_the_argmax_at_the_positions_before(model):
    batch = random_batch(model, frames=(6,))
    row = row_of(predictions(model, batch), 0, "codebook_2")
    with torch.no_grad():
        hidden_BSD = model.lm.model(
            input_ids=batch.text_BS, audio_input_ids=batch.tokens_BSC, audio_input_ids_mask=batch.is_audio_BS
        )
        logits_SCV = model.lm.audio_lm_head(hidden_BSD.last_hidden_state[0]).unflatten(-1, (CODEBOOKS, -1))
    for position, target, predicted in zip(
        row["first_position"], row["first_target"], row["first_predicted"], strict=True
    ):
        assert batch.tokens_BSC[0, position + 1, 2] == target  # what stands on the next position
        assert logits_SCV[position, 2].argmax() == predicted


def test_a_copying_model_is_right_only_where_codes_repeat(model):
    """Scored at its own position it would be right everywhere: the fault of documents 001 and 004."""
    batch = random_batch(model, frames=(40,))
    copying = CopiesItsInput(model)
    for codebook in range(CODEBOOKS):
        row = row_of(predictions(copying, batch), 0, f"codebook_{codebook}")
        assert row["correct"] < 8


class CopiesItsInput(Wrapped):
    """Its states are one-hot of the input tokens, its heads read them off."""

    def __init__(self, model):
        super().__init__(model)
        self.codes, self.bos_id = model.codes, model.bos_id

    def outputs(self, batch):
        size = self.codes + 2
        states_PD = torch.nn.functional.one_hot(batch.tokens_BSC[batch.exists_BS], size).flatten(1).float()
        heads = [Head((rows_VD,)) for rows_VD in torch.eye(size * CODEBOOKS).split(size)]
        return {Codebook(c): Output(states_PD, head) for c, head in enumerate(heads)}


def test_text_is_decoded_whole_and_written_to_the_run_and_the_report(model, tmp_path):
    turns = [Turn("user", ("say",)), Turn("assistant", (ARABIC, random_codes(4, torch.Generator())))]
    batch = collate([model.lay_out(None, "", turns=turns)], [0], model.pad_id)
    writer = RunWriter(tmp_path)
    writer.facts(Facts(system="higgs"))
    writer.step(7, {"train/loss": 1.0})
    log_predictions(model, batch, ["clips/one.wav"], 7, writer)
    writer.close()
    run = read_run(tmp_path)
    [artifact] = run.artifacts
    assert (artifact.kind, artifact.step) == ("prediction", 7)
    rows = [json.loads(line) for line in (tmp_path / artifact.path).read_text(encoding="utf-8").splitlines()]
    text = row_of(rows, 0, "text")
    assert text["target_text"] == f"{ARABIC}<|audio_out_bos|><|audio_eos|><|eot_id|>" and ARABIC in text["written"]
    assert len(text["predicted_text"]) and rows[0]["source"] == "clips/one.wav" and rows[0]["step"] == 7
    page = render(run, Diagnosis([], [], [], {}))
    assert f"<bdi>{ARABIC}&lt;|audio_out_bos|&gt;" in page  # of its own direction, letters untouched
    assert "codebook_3" in page and f'<span class="num">{text["first_target"][0]}</span>' in page


def test_a_hostile_or_broken_log_does_no_harm(tmp_path):
    writer = RunWriter(tmp_path)
    writer.facts(Facts(system="higgs"))
    writer.step(1, {"train/loss": 1.0})
    writer.close()
    (tmp_path / "artifacts.jsonl").write_text('{"kind": "prediction", "path": "p.jsonl", "step": 1, "facts": {}}\n')
    hostile = {
        "clip": 0,
        "stream": "text",
        "written": "<script>alert(1)</script>\u202e",
        "first_target": ["<b>", None],
        "counted": {},
    }
    for text in (json.dumps(hostile), "[1]", "{", json.dumps({"clip": []}), ""):
        (tmp_path / "p.jsonl").write_text(text)
        page = render(read_run(tmp_path), Diagnosis([], [], [], {}))
        assert "<script>alert" not in page and "<b>" not in page and "\u202e" not in page
        assert ("p.jsonl cannot be read" in page) == (text not in (json.dumps(hostile), ""))
    (tmp_path / "p.jsonl").unlink()
    assert "p.jsonl cannot be read" in render(read_run(tmp_path), Diagnosis([], [], [], {}))
