"""The wire contract: the .proto files, and the code that `make proto` generates from it."""
