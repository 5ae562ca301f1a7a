"""Plain training loops with one planted fault each, run unedited under `python -m earnest watch`: what it names.

    python -m benchmarks.loops [NAME ...]     # about 15 s a loop on one core; all of them if no name is given

Two loops, as people write them: a small decoder on tokens of a Markov chain, and a small codec (two residual codebooks,
hinge discriminator) on harmonic tones. A fault is a change of one or two lines.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

TOLD = re.compile(r"^earnest · step (\d+) · . (\w+) (\w+) ([\w-]+)", re.MULTILINE)

DECODER = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
V, T, B, D = 256, 48, 16, 64
P = torch.softmax(torch.randn(V, V) * 2.5, -1)
def sample(n):
    x = torch.zeros(n, T + 1, dtype=torch.long); x[:, 0] = torch.randint(0, V, (n,))
    for t in range(T):
        x[:, t + 1] = torch.multinomial(P[x[:, t]], 1).squeeze(1)
    return x
data, val = sample(400), sample(32)
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.ff = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Dropout({DROPOUT}), nn.Linear(4 * D, D))
    def forward(self, x):
        b, t, d = x.shape
        q, k, v = [y.view(b, t, 4, d // 4).transpose(1, 2) for y in self.qkv(self.ln1(x)).chunk(3, -1)]
        y = F.scaled_dot_product_attention(q, k, v, is_causal={CAUSAL})
        x = x + self.out(y.transpose(1, 2).reshape(b, t, d))
        return x + self.ff(self.ln2(x))
class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok, self.pos = nn.Embedding(V, D), nn.Embedding(T, D)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.ln, self.head = nn.LayerNorm(D), nn.Linear(D, V)
        {INIT}
    def forward(self, x):
        h = self.tok(x) + self.pos(torch.arange(x.shape[1]))
        for b in self.blocks: h = b(h)
        {DETACH}
        return {LOGITS}
model = GPT()
opt = {OPTIMIZER}
sched = {SCHEDULE}
{BEFORE}
for step in range({STEPS}):
    batch = {BATCH}
    x, y = {TARGETS}
    logits = model(x)
    loss = {LOSS}
    {CLEAR}
    loss.backward()
    {CLIP}
    opt.step()
    if sched: sched.step()
    if step % 50 == 49:
        {EVALUATE}
        print(f"step {step} loss {loss.item():.4f}", flush=True)
"""
DECODER_HEALTHY = {
    "DROPOUT": "0.0",
    "CAUSAL": "True",
    "INIT": "pass",
    "DETACH": "pass",
    "LOGITS": "self.head(self.ln(h))",
    "OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=1e-3)",
    "SCHEDULE": "None",
    "BEFORE": "",
    "STEPS": "300",
    "BATCH": "data[torch.randint(0, len(data), (B,))]",
    "TARGETS": "batch[:, :-1], batch[:, 1:]",
    "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1))",
    "CLEAR": "opt.zero_grad()",
    "CLIP": "pass",
    "EVALUATE": "pass",
}
VALIDATE = "model.eval(); F.cross_entropy(model(val[:, :-1]).reshape(-1, V), val[:, 1:].reshape(-1)); model.train()"
PADDED = "torch.cat([data[torch.randint(0, len(data), (B,))][:, :9], torch.zeros(B, T - 8, dtype=torch.long)], 1)"
NORM = "nn.utils.clip_grad_norm_(model.parameters(), "
DECODER_FAULTS: dict[str, dict[str, str]] = {
    "healthy": {},
    "labels not shifted": {"TARGETS": "batch[:, :-1], batch[:, :-1]"},
    "softmax before the loss": {"LOGITS": "torch.softmax(self.head(self.ln(h)), -1)"},
    "no causal mask": {"CAUSAL": "False"},
    "rate 1.0": {"OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=1.0)"},
    "rate 1e-7": {"OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=1e-7)"},
    "SGD, rate 1e-5": {"OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=1e-5)"},
    "dropout 0.95": {"DROPOUT": "0.95"},
    "weight decay 100": {"OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=100.0)"},
    "model made anew": {"BEFORE": "model = GPT()"},
    "head alone in the optimizer": {"OPTIMIZER": "torch.optim.AdamW(model.head.parameters(), lr=1e-3)"},
    "body detached": {"DETACH": "h = h.detach()"},
    "evaluation mode": {"BEFORE": "model.eval()", "DROPOUT": "0.1"},
    "evaluation mode after step 50": {"EVALUATE": "model.eval()", "DROPOUT": "0.1"},
    "weights all zero": {"INIT": "[nn.init.zeros_(p) for p in self.parameters()]"},
    "weights 30 times as large": {"INIT": "[p.data.mul_(30) for p in self.parameters()]"},
    "gradients never cleared": {"CLEAR": "pass"},
    "gradients cleared before the step": {"CLEAR": "pass", "CLIP": "opt.zero_grad()"},
    "clipped at 1e-6": {"CLIP": NORM + "1e-6)", "OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=0.1)"},
    "clipped before backward": {"CLEAR": f"opt.zero_grad(); {NORM}0.1)"},
    "no step": {"BEFORE": "opt.step = lambda: None"},
    "rate falls by a tenth each step": {"SCHEDULE": "torch.optim.lr_scheduler.StepLR(opt, 1, 0.9)"},
    "one batch over and over": {"BATCH": "data[:B]"},
    "twenty clips, validated": {
        "BATCH": "data[torch.randint(0, 20, (B,))]", "EVALUATE": VALIDATE, "STEPS": "600",
    },
    "random labels": {"TARGETS": "batch[:, :-1], torch.randint(0, V, (B, T))"},
    "labels of other clips": {"TARGETS": "batch[:, :-1], data[torch.randint(0, len(data), (B,))][:, 1:]"},
    "loss negated": {"LOSS": "-F.cross_entropy(logits.reshape(-1, V), y.reshape(-1))"},
    "loss summed": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1), reduction='sum')",
        "OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=0.1)",
    },
    "squared error of one-hot labels": {"LOSS": "F.mse_loss(logits, F.one_hot(y, V).float())"},
    "logits of another order": {"LOSS": "F.cross_entropy(logits.transpose(0, 1).reshape(-1, V), y.reshape(-1))"},
    "four fifths padding": {"BATCH": PADDED},
    "labels mostly ignored": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1).masked_fill(y.reshape(-1) > 3, -100))",
    },
    # a second set, written after the first had been mended, and run once
    "places in a random order": {"BATCH": "data[torch.randint(0, len(data), (B,))][:, torch.randperm(T + 1)]"},
    "ids in a random order": {"BEFORE": "data = data.flatten()[torch.randperm(data.numel())].view_as(data)"},
    "warmup of 100,000 steps": {
        "SCHEDULE": "torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1, (s + 1) / 100000))",
    },
    "loss of the last token": {"LOSS": "F.cross_entropy(logits[:, -1], y[:, -1])"},
    "loss divided by the vocabulary": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1)) / V",
        "OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=0.1)",
    },
    "logits cut to 1": {"LOGITS": "self.head(self.ln(h)).clamp(-1, 1)"},
    "ReLU on logits": {"LOGITS": "self.head(self.ln(h)).relu()"},
    "logits divided by 100": {"LOGITS": "self.head(self.ln(h)) / 100"},
    "logits times 10,000, NaN made 0": {
        "LOSS": "torch.nan_to_num(F.cross_entropy(logits.reshape(-1, V) * 1e4, y.reshape(-1)))",
    },
    "its own answers as labels": {"TARGETS": "batch[:, :-1], model(batch[:, :-1]).argmax(-1)"},
    "Adam's eps 1": {"OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1.0)"},
    "optimizer made anew in each step": {
        "CLEAR": "opt = torch.optim.AdamW(model.parameters(), lr=1e-3); opt.zero_grad()",
    },
    "biases and norms alone in the optimizer": {
        "OPTIMIZER": "torch.optim.AdamW([p for p in model.parameters() if p.ndim < 2], lr=1e-3)",
    },
    "momentum 0.99, rate 10": {"OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=10.0, momentum=0.99)"},
    "labels two ahead": {"TARGETS": "batch[:, :-2], batch[:, 2:]"},
    "labels one behind": {"TARGETS": "batch[:, 1:], batch[:, :-1]"},
    "gradients of a block zeroed": {"CLIP": "[p.grad.mul_(0) for p in model.blocks[0].parameters()]"},
    "label smoothing 0.99": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1), label_smoothing=0.99)",
    },
    "padding of unequal length trained": {
        "BATCH": "torch.where(torch.arange(T + 1) < torch.randint(9, T, (B, 1)), "
        "data[torch.randint(0, len(data), (B,))].clamp(min=1), 0)",
    },
    "healthy, prompts masked": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), torch.where(torch.arange(T) < 40, -100, y).reshape(-1))",
    },
    "healthy, padding ignored": {
        "BATCH": "torch.where(torch.arange(T + 1) < torch.randint(9, T, (B, 1)), "
        "data[torch.randint(0, len(data), (B,))], 0)",
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1), ignore_index=0)",
    },
    "healthy, label smoothing 0.1": {
        "LOSS": "F.cross_entropy(logits.reshape(-1, V), y.reshape(-1), label_smoothing=0.1)",
    },
    "healthy, clipped and decayed": {
        "CLIP": NORM + "1.0)", "OPTIMIZER": "torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)",
    },
    "healthy, validated": {"EVALUATE": VALIDATE},
    "healthy, cosine": {"SCHEDULE": "torch.optim.lr_scheduler.CosineAnnealingLR(opt, 300)"},
    "healthy, SGD": {"OPTIMIZER": "torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)"},
    "healthy, tied": {"INIT": "self.head.weight = self.tok.weight; nn.init.normal_(self.tok.weight, std=0.02)"},
    "healthy, dropout 0.1": {"DROPOUT": "0.1"},
    "healthy, RMSprop": {"OPTIMIZER": "torch.optim.RMSprop(model.parameters(), lr=3e-4)"},
}  # fmt: skip

CODEC = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
N, B, D, K = 2048, 8, 32, 64
def clip():
    t, f, a = torch.arange(N) / 8000, 80 + 300 * torch.rand(1), torch.rand(6)
    x = sum(a[i] * torch.sin(2 * torch.pi * f * (i + 1) * t) for i in range(6))
    return (x / x.abs().max() * 0.8 + 0.01 * torch.randn(N))[None]
data = torch.stack([clip() for _ in range(200)])
class VQ(nn.Module):
    def __init__(self):
        super().__init__(); self.codebook = nn.Embedding(K, D); self.codebook.weight.data.uniform_(-1 / K, 1 / K)
    def forward(self, z):
        flat = z.transpose(1, 2)
        idx = torch.cdist(flat.reshape(-1, D), self.codebook.weight).argmin(-1).view(flat.shape[:2])
        q = self.codebook(idx).transpose(1, 2)
        return {QUANTISED}, idx, F.mse_loss(z, q.detach()) * 0.25 + F.mse_loss(q, z.detach()) * {TABLE}
class Codec(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv1d(1, 16, 8, 4, 2), nn.ELU(), nn.Conv1d(16, D, 8, 4, 2))
        self.vq = nn.ModuleList(VQ() for _ in range(2))
        self.dec = nn.Sequential(nn.ConvTranspose1d(D, 16, 8, 4, 2), nn.ELU(), nn.ConvTranspose1d(16, 1, 8, 4, 2))
        self.drawn = False
    def draw(self, z):
        flat, self.drawn = z.detach().transpose(1, 2).reshape(-1, D), True
        for vq in self.vq:
            vq.codebook.weight.data.copy_(flat[torch.randperm(len(flat))[:K]])
            flat = flat - vq.codebook.weight.data[torch.cdist(flat, vq.codebook.weight.data).argmin(-1)]
    def forward(self, x):
        r = z = self.enc(x); out, aux = 0, 0
        if not self.drawn: {START}
        for vq in self.vq:
            q, _, part = vq(r); r, out, aux = r - q.detach(), out + q, aux + part
        return self.dec(out), aux
class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(1, 16, 15, 4, 7), nn.LeakyReLU(0.2), nn.Conv1d(16, 1, 15, 4, 7))
    def forward(self, x): return self.net(x)
G, Ds = Codec(), Discriminator()
opt_g = torch.optim.Adam({TRAINED}, lr=3e-4, betas=(0.8, 0.99))
opt_d = torch.optim.Adam(Ds.parameters(), lr={RATE}, betas=(0.8, 0.99))
def spec(x): return torch.stft(x.squeeze(1), 256, 64, window=torch.hann_window(256), return_complex=True).abs()
for step in range(200):
    x = data[torch.randint(0, len(data), (B,))]
    y, aux = G(x)
    real, fake = Ds(x), Ds({FAKE})
    d_loss = {LOSS_D}
    opt_d.zero_grad(); d_loss.backward({BACKWARD}); opt_d.step()
    loss = F.l1_loss(spec(y), spec(x)) + F.l1_loss(y, x) + 0.1 * {ADVERSARIAL} + aux
    {CLEAR}; loss.backward(); opt_g.step()
"""
CODEC_HEALTHY = {
    "QUANTISED": "z + (q - z).detach()",
    "TABLE": "1",
    "START": "self.draw(z)",
    "TRAINED": "G.parameters()",
    "RATE": "3e-4",
    "FAKE": "y.detach()",
    "LOSS_D": "F.relu(1 - real).mean() + F.relu(1 + fake).mean()",
    "BACKWARD": "",
    "ADVERSARIAL": "-Ds(y).mean()",
    "CLEAR": "opt_g.zero_grad()",
}
WITHOUT_TABLES = "[p for name, p in G.named_parameters() if 'vq' not in name]"
CODEC_FAULTS: dict[str, dict[str, str]] = {
    "codec, healthy": {},
    "codec, codebooks not drawn from data": {"START": "pass"},
    "codec, no straight-through": {"QUANTISED": "q"},
    "codec, codebooks in no optimizer": {"TRAINED": WITHOUT_TABLES},
    "codec, fake not detached": {"FAKE": "y", "BACKWARD": "retain_graph=True"},
    "codec, adversarial loss of detached audio": {"ADVERSARIAL": "-Ds(y.detach()).mean()"},
    "codec, scores of the discriminator's step": {"ADVERSARIAL": "-fake.detach().mean()"},
    "codec, real twice": {"LOSS_D": "F.relu(1 - real).mean() + F.relu(1 + real).mean()"},
    "codec, discriminator's rate 0": {"RATE": "0.0"},
    "codec, discriminator's rate 0.1": {"RATE": "0.1"},
    "codec, gradients never cleared": {"CLEAR": "pass"},
    "codec, encoder in no optimizer": {"TRAINED": "[*G.dec.parameters(), *G.vq.parameters()]"},
    "codec, commitment 100 times": {"CLEAR": "opt_g.zero_grad(); loss = loss + 100 * aux"},
    "codec, adversarial loss of real audio": {"ADVERSARIAL": "-Ds(x).mean()"},
    "codec, adversarial loss negated": {"ADVERSARIAL": "Ds(y).mean()"},
    "codec, real and fake swapped": {"LOSS_D": "F.relu(1 + real).mean() + F.relu(1 - fake).mean()"},
    "codec, discriminator's loss times 0": {"LOSS_D": "0 * (real.mean() + fake.mean())"},
    "codec, one optimizer for both": {"TRAINED": "[*G.parameters(), *Ds.parameters()]"},
    "codec, healthy, least squares": {
        "LOSS_D": "((1 - real) ** 2).mean() + (fake**2).mean()", "ADVERSARIAL": "((1 - Ds(y)) ** 2).mean()",
    },
    "codec, healthy, slower discriminator": {"RATE": "1e-4"},
}  # fmt: skip


def main(names: list[str]) -> None:
    loops = {name: (DECODER, {**DECODER_HEALTHY, **changes}) for name, changes in DECODER_FAULTS.items()}
    loops |= {name: (CODEC, {**CODEC_HEALTHY, **changes}) for name, changes in CODEC_FAULTS.items()}
    print("| loop | what is told (step) |\n|---|---|")
    for name, (text, parts) in loops.items():
        if not names or name in names:
            print(f"| {name} | {told(text, parts)} |", flush=True)


def told(text: str, parts: Mapping[str, str]) -> str:
    for part, code in parts.items():
        text = text.replace("{" + part + "}", code)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.py").write_text(text)
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "earnest", "watch", "train.py"]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode not in (0, 1) or "Traceback" in ran.stderr:
        return f"FAILED: {ran.stderr.strip().splitlines()[-1][:100]}"
    return ", ".join(f"{code} {name} {severity} ({step})" for step, severity, code, name in TOLD.findall(ran.stderr))


if __name__ == "__main__":
    main(sys.argv[1:])
