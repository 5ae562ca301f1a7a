"""What a log says in words is counted, quoted and told, beside numbers and without."""

import time

import pytest

from earnest.errors import UserError
from earnest.logs import read
from earnest.logs.messages import SAYINGS, Messages
from earnest.messages import MEANS


def notes_of(text: str) -> list[str]:
    messages = Messages()
    messages.block(text.encode())
    return [message.told for message in messages.all()]


@pytest.mark.parametrize("saying", SAYINGS, ids=lambda saying: saying.example)
def test_every_saying_is_found(saying):
    assert saying.word in saying.example.lower().encode()
    told = notes_of(f"step 1 loss 3\n{saying.example}\nstep 2 loss 2\n")
    assert (
        len(told) == 1
        and told[0].startswith(MEANS[saying.kind])
        and saying.example in told[0]
        and "on line 2" in told[0]
    )
    assert "ends with" in notes_of(f"step 1 loss 3\r\n{saying.example}\r\n\r\n")[0]


HARMLESS = """step 1 loss nan grad_norm inf mel_error: 0.3 skipped 0 memory: 3.2GiB
overflow 0 | loss_scale 65536 | word error: 3.2
| error_rate 0.3 | wer 0.3
max_steps reached, training finished
INFO: ignoring errors: False, ValueErrors are raised
 iteration 10/ 500 | lm loss: 3.1E+00 | number of skipped iterations:   0 | number of nan iterations:   0 |
[Rank 0] step=10, skipped=0, lr=[0.0001], mom=[(0.9, 0.95)] num_inf: 0, num_skipped: 2
"""


def test_names_of_signals_are_no_messages():
    assert notes_of(HARMLESS) == []


def test_messages_are_counted_with_their_lines_over_blocks():
    messages = Messages()
    for block in (b"a\nThe grad norm is nan. Skipping\n", b"b\nc\n", b"The grad norm is nan. Skipping\nd\n"):
        messages.block(block)
    assert [(message.kind, message.count, *message.place) for message in messages.all()] == [("skipped", 2, "", 2, 5)]


def test_a_log_with_messages(tmp_path):
    lines = [f"step {i} loss {5 - i / 10} lr 0.001" for i in range(1, 21)]
    lines[10:10] = ["WARNING: overflow detected, setting loss scale to: 0.125"] * 2
    lines += ["Traceback (most recent call last):", '  File "train.py", line 1, in <module>', "ValueError: bad clip"]
    path = tmp_path / "train.log"
    path.write_text("\n".join(lines))
    run = read(path)
    overflow, failed = run.messages
    assert (overflow.kind, overflow.count, overflow.words) == (
        "overflow",
        2,
        "WARNING: overflow detected, setting loss scale to: 0.125",
    )
    assert failed.told == f"{MEANS['failed']}: the log ends with 'ValueError: bad clip' (on line 25)"
    assert run.last_step == 20


def test_a_log_that_ends_before_its_first_number_is_refused_with_its_own_words(tmp_path):
    path = tmp_path / "job.o123"
    path.write_text("loading\nTraceback (most recent call last):\nFileNotFoundError: no such clip\n")
    with pytest.raises(UserError) as error:
        read(path)
    assert "ends with 'FileNotFoundError: no such clip'" in error.value.seen


def test_the_printed_log_beside_a_table_is_searched_for_messages(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n1,3\n2,2\n")
    (tmp_path / "slurm-1.out").write_text("step 1 loss 3\n*** JOB 1 ON n1 CANCELLED AT 10:00 DUE TO TIME LIMIT ***\n")
    (message,) = read(tmp_path).messages
    assert message.told.startswith(f"{MEANS['stopped']}: slurm-1.out ends with '*** JOB 1")


def test_a_word_in_every_line_costs_little():
    block = b"step 1 | loss 3.5 | mel_error 0.3 | skipped 0 | overflow 0\n" * 100_000
    start_s = time.process_time()
    messages = Messages()
    for _ in range(5):
        messages.block(block)
    assert messages.all() == [] and time.process_time() - start_s < 5
