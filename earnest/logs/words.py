"""The vocabulary of foreign names: how a name is taken apart, and which words tell steps, splits, codebooks and clocks.

What a name means as a signal is decided in names.py; the spellings of signals are `signals.ALIASES`.
"""

import re
from functools import lru_cache

# the first of these that a log has counts its steps
STEP_NAMES = (
    "trainer_global_step", "train_global_step", "global_step", "global_steps", "num_updates", "num_update",
    "current_step", "current_steps", "global_step_max_steps", "train_step", "step", "steps", "_step", "nb_steps",
    "train_iter", "train_iteration", "iteration", "iterations", "iter", "iters", "it", "itr", "n_iter", "update",
    "updates", "batch", "batch_idx", "batch_index", "minibatch", "schritt", "schritte",
)  # fmt: skip
EPOCH_NAMES = ("epoch", "epochs", "epoche", "current_epoch", "train_epoch", "trainer_epoch", "epoch_idx", "ep")
# names that count the same thing as each other: not batches, nor W&B's log calls
COUNTERS = {"step", "global_step", "iteration", "iter", "it", "update", "num_updates"}
AXES = {**dict.fromkeys(STEP_NAMES, "step"), **dict.fromkeys(EPOCH_NAMES, "epoch")}
SPLITS = {
    **dict.fromkeys(["train", "training", "trn", "trainer", "tr", "inner"], "train"),
    **dict.fromkeys(["eval", "evaluation", "evaluating", "dev", "devel", "cv", "heldout"], "eval"),
    **dict.fromkeys(["val", "valid", "validation", "validating"], "eval"),
    "test": "test",
}
# columns of words that tell a row's split, or the metric that its value is of
LABELS_OF_SPLITS = {"split", "phase", "mode", "stage", "subset", "partition"}
LABELS = LABELS_OF_SPLITS | {"tag", "tags", "metric", "name", "key"}
# columns that tell a row's run, if several runs are in one table
LABELS_OF_RUNS = {
    "run", "run_id", "run_name", "runid", "experiment", "experiment_id", "experiment_name", "exp", "exp_id", "exp_name",
    "trial", "trial_id", "trial_name", "seed", "fold",
}  # fmt: skip
LABELS_OF_ROWS = LABELS | LABELS_OF_RUNS
# words of a name that do not change which signal it is
AVERAGING = {
    "epoch", "step", "avg", "average", "mean", "running", "smoothed", "iter", "batch", "cur", "current", "unweighted",
    "raw", "total", "all", "reduced", "computed", "final", "is", "value", "per", "now", "rank", "with", "avr",
}  # fmt: skip
# words that make of a signal's name a setting, or a record of it
BOOKKEEPING = {
    "every", "interval", "weight", "weights", "coef", "coeff", "coefficient", "scale", "best", "lowest", "min",
    "minimum", "max", "maximum", "target", "threshold", "count", "at",
}  # fmt: skip
CODEBOOK = re.compile(r"(?:cb|codebook|code|q|rvq|vq|quantizer|quantiser|level|channel|ch)(\d{1,3})")
CODEBOOK_WORDS = {"cb", "codebook", "code", "q", "rvq", "vq", "quantizer", "quantiser", "level", "channel", "book"}
CODEBOOK_FILLERS = {
    "audio", "token", "tokens", "codes", "code", "codebook", "cb", "speech", "train", "vq", "rvq", "per", "of",
}  # fmt: skip
# names of a loss, if nothing else is one and the values are no shares
BARE_LOSSES = {"err", "error", "cost", "objective"}
OPTIMIZER = re.compile(
    r"(?:(?:fused)?(?:adamw?|adafactor|adagrad|adamax|lamb|lion|muon|nadam|prodigy|radam|rmsprop|sgd))?"
    r"(?:(?:pg|group)?\d+)?"
)  # what may follow "lr": lr-AdamW/pg1
FOLDERS = {
    *SPLITS, "metrics", "metric", "log", "logs", "loss", "losses", "scalars", "charts", "monitor", "stats", "global",
    "main",
}  # fmt: skip
# of other alphabets, as trainers that were translated print them
OTHER_LANGUAGES = {
    "学习率": "lr", "學習率": "lr", "学習率": "lr", "학습률": "lr", "损失": "loss", "損失": "loss", "손실": "loss",
    "лосс": "loss", "потери": "loss", "потеря": "loss", "梯度范数": "grad_norm", "准确率": "accuracy",
    "準確率": "accuracy", "정확도": "accuracy", "точность": "accuracy", "训练回合": "epoch",
    "轮次": "epoch", "回合": "epoch", "エポック": "epoch", "에포크": "epoch", "эпоха": "epoch", "步数": "step",
    "步": "step", "ステップ": "step", "스텝": "step", "шаг": "step", "迭代次数": "iteration", "迭代": "iteration",
    "训练": "train", "訓練": "train", "学習": "train", "훈련": "train", "обучение": "train", "验证集": "valid",
    "验证": "valid", "驗證": "valid", "検証": "valid", "검증": "valid", "валидация": "valid", "测试": "test",
    "測試": "test", "テスト": "test",
}  # fmt: skip
CLOCKS = {
    "timestamp", "runtime", "time", "walltime", "relative", "seconds", "second", "elapsed", "eta", "date", "flos",
    "it", "samples", "tokens", "memory", "gpu",
}  # fmt: skip


def in_english(text: str) -> str:
    """A text with the words of `OTHER_LANGUAGES` in English."""
    told = _other_languages().sub(lambda match: f" {OTHER_LANGUAGES[match[0].lower()]} ", text)
    return re.sub(r"(?<=[a-z])  (?=[a-z])", " ", told)  # of two such words in a row


@lru_cache(maxsize=1)
def _other_languages() -> re.Pattern[str]:
    return re.compile("|".join(sorted(OTHER_LANGUAGES, key=len, reverse=True)), re.IGNORECASE)


@lru_cache(maxsize=50_000)
def words(name: str) -> tuple[str, ...]:
    """Take a foreign name apart: ``trainLoss``, ``train/loss`` and ``Train Loss`` are all train, loss."""
    name = name if name.isascii() else in_english(name)
    separated: list[str] = []
    for before, char in zip(" " + name, name, strict=False):
        separated.append(" " + char if char.isupper() and before.islower() else char if char.isalnum() else " ")
    return tuple("".join(separated).lower().replace("held out", "heldout").split())


@lru_cache(maxsize=50_000)
def axis_of(name: str) -> str | None:
    """ "step" or "epoch" if a name is one of their spellings."""
    return AXES.get("_".join(words(name)))


def without_split(column: str) -> str:
    """A column's name without a folder that tells its split: ``train/loss`` is loss, ``mel/loss/val`` mel/loss."""
    parts = column.split("/")
    while len(parts) > 1 and parts[0].lower() in SPLITS:
        parts = parts[1:]
    while len(parts) > 1 and parts[-1].lower() in SPLITS:
        parts = parts[:-1]
    return "/".join(parts)
