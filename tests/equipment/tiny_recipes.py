"""Options that make each recipe small: five steps in a second or two."""

ONE_LAYER = ("--shape.width", "32", "--shape.layers", "1", "--shape.heads", "2", "--shape.ffn", "32")
TOKENS = (
    *("--data.window-s", "0.2", "--data.positions-per-batch", "400", "--data.held-out-frac", "0.2"),
    *("--demos.max-duration-s", "0.1", "--optimizer.warmup-steps", "1", "--evaluate-every-steps", "2"),
)
ENCODER = ("--shape.encoder-width", "16", "--shape.encoder-layers", "1", "--shape.encoder-heads", "1")
EXPERT = ("--shape.expert-width", "16", "--shape.expert-ffn", "16")
CODEC = (
    *("--shape.encoder-dim", "16", "--shape.encoder-hidden", "16", "--shape.decoder-dim", "16"),
    *("--shape.decoder-hidden", "16", "--shape.codebooks", "2", "--shape.codebook-size", "8"),
    *("--data.window-s", "0.2", "--data.clips-per-batch", "4", "--data.held-out-frac", "0.2"),
    *("--discriminator.window-samples", "128", "--discriminator.channels", "4", "--discriminator.from-step", "2"),
    *("--init-frames", "30", "--log-every-steps", "1", "--evaluate-every-steps", "3"),
)
TINY = {  # recipe -> the options that make it small: five steps in a second or two
    "higgs-tiny": (*ONE_LAYER, *TOKENS),
    "dia-tiny": (*ONE_LAYER, *ENCODER, *TOKENS),
    "mot-tiny": (*ONE_LAYER, *EXPERT, *TOKENS),
    "mot-smol": (
        *EXPERT,
        *TOKENS,
        "--mixed-precision",
        "no",
        "--design.max-positions",
        "256",
        "--design.text-window",
        "64",
    ),
    "amy-tiny": CODEC,
}
