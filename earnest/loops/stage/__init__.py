"""Where a stranger's script runs: ``python -m earnest.loops.stage PLAN``, in a process of its own.

`guard` keeps it from the network, from the user's files and from waiting; `devices` keeps it on the processor, in
float32; `packages` and `models` stand in for what is not there (packages, checkpoints, tokenizers); `settings` turns
down what a training asks of its machine. `forks` waits for the first ids that are looked up with gradients on; there
the process forks, once for every run that tracing asks for, and each child goes on with the script by itself.
"""
