"""The wire contract: prediction.proto, and the code that `make proto` generates from it."""
