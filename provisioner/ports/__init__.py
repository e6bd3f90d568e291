"""The ports: what the product asks of the outside. Each driver passes its port's contract suite in tests/contract."""
