"""What is measured beside the loss: `Step` in, signals and artifacts out."""
