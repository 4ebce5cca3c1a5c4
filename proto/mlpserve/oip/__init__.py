"""The Open Inference Protocol: its .proto, and the messages that `make proto` describes from it."""
