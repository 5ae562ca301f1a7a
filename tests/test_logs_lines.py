"""Lines of free text: every pattern has a line that it is for, and that line is read rightly."""

import pytest

from earnest.logs.formats.line import EXAMPLES, NUMBER, NUMBER_COMMA, marked, name_of, planned

READ = {  # example -> the rows that it gives
    "step 1,200 loss 5.75 lr 1e-4 grad nan": [{"step": "1,200", "loss": "5.75", "lr": "1e-4"}],
    "step: 1; loss: 0,53": [{"step": "1", "loss": "0,53"}],
    "2026-01-01 10:00:01,123 step 5 loss 3.5": [{"step": "5", "loss": "3.5"}],
    "  3%|▎  | 10/300 [00:05<02:25, 1.99it/s, loss=5.75]": [{"bar": "10", "loss": "5.75"}],
    "3it [00:03, 11.9it/s, loss=2.5]": [{"bar": "3", "loss": "2.5"}],
    "INFO: 1epoch:train:51-100batch: loss=30.2": [{"epoch": "1", "step": "100", "loss": "30.2"}],
    "INFO: 1epoch results: [train] loss=31, [valid] loss=29": [{"epoch": "1", "loss": "31", "valid/loss": "29"}],
    "Train Epoch: 1 [640/60000 (1%)]\tLoss: 1.3": [{"epoch": "1", "step": "640", "Loss": "1.3"}],
    " 50/100 [==>....] - ETA: 1s - loss: 0.53": [{"step": "50", "ETA": "1", "loss": "0.53"}],
    "Epoch 3: 6.01 → 5.76 (avg loss)": [{"Epoch": "3", "avg loss": "6.01"}, {"Epoch": "3", "avg loss": "5.76"}],
    "Valid Summary | Epoch 1 | ce 6.0E+00": [{"Epoch": "1", "valid/ce": "6.0E+00"}],
    "iteration 100 | learning rate: 1.5E-04 | lm loss: 7.5E+00": [
        {"iteration": "100", "learning rate": "1.5E-04", "lm loss": "7.5E+00"}
    ],
    "Test set: Average loss: 0.05, Accuracy: 9836/10000 (98%)": [{"test/Average loss": "0.05", "test/Accuracy": "98"}],
    "Train loss 12 5.946629 Grad Norm 7.3": [{"step": "12", "Train loss": "5.946629", "Grad Norm": "7.3"}],
    "| loss 3.5 | lr 0.1 |": [{"loss": "3.5", "lr": "0.1"}],
    "critic (band 2) loss: 0.000 | Codebook 0 loss: 6.49": [{"critic band_2 loss": "0.000", "codebook_0 loss": "6.49"}],
    "│       │ mel/loss   │ 31.500 │ 31.600 │": [{"mel/loss": "31.500"}],
    "INFO [1.4626, 3.100, 54.2840]": [{"list_1": "1.4626", "list_2": "3.100", "list_3": "54.2840"}],
    "Losses: [2.56, 2.11, 8.75], step: 200": [{"step": "200", "list_1": "2.56", "list_2": "2.11", "list_3": "8.75"}],
    "train_loss[loss=75.2, over 900 frames], tot_loss[loss=75.1]": [
        {"train_loss/loss": "75.2", "tot_loss/loss": "75.1"}
    ],
    "Avg : g 1.3729 d 0.0000 ad 0.0000| step 5976": [{"loss_g": "1.3729", "loss_d": "0.0000", "step": "5976"}],
    "[0/20][10/32]\tLoss_D: 1.8010\tLoss_G: 8.0963": [
        {"epoch": "0", "step": "10", "Loss_D": "1.8010", "Loss_G": "8.0963"}
    ],
    "40245, 4.021: 6.907692, 6.910023 avg, 0.081346 rate, 0.38 seconds, 5151360 images": [
        {"step": "40245", "loss": "6.907692", "loss_avg": "6.910023", "learning_rate": "0.081346"}
    ],
    "Loss at step 100: 2.34": [{"step": "100", "loss": "2.34"}],
    "Saving dict for global step 500: eval_accuracy = 0.85, loss = 0.72": [
        {"step": "500", "eval_accuracy": "0.85", "eval/loss": "0.72"}
    ],
    "0.69 loss @ it 50": [{"it": "50", "loss": "0.69"}],
    " --> EVAL PERFORMANCE": [],
    "2026-01-01 (trainer:87) INFO: loss = 3.5": [{"loss": "3.5"}],
    "Namespace(lr=0.0001, max_grad_norm=1.0)": [{"lr": "0.0001", "max_grad_norm": "1.0"}],
}


@pytest.mark.parametrize(("pattern", "example"), EXAMPLES, ids=[example for _, example in EXAMPLES])
def test_every_pattern_finds_what_it_is_for(pattern, example):
    number = NUMBER_COMMA if pattern is NUMBER_COMMA else NUMBER
    assert pattern.search(example if pattern in (NUMBER, NUMBER_COMMA) else marked(number.split(example)[::2]))
    plan, parts = planned(example, number, {})
    rows = [{name_of(cell, parts): parts[2 * cell.place + 1] for cell in row} for row in plan.rows]
    assert [{name.lower(): text for name, text in row.items()} for row in rows] == [
        {name.lower(): text for name, text in row.items()} for row in READ[example]
    ]
