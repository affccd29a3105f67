"""The tests: run `trial tests`, or `make test` for those that need a directory."""
