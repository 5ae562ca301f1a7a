"""The language-model systems: `Batch` in, hidden states and heads out."""
