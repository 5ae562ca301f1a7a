"""What tests share: small real models, runs made by their mechanism, logs of the rules. No test imports another."""
