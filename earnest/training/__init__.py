"""The loop: steps of language models and of GANs, optimizers, evaluation, checkpoints."""
