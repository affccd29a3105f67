"""Cases that hold in any domain: unit tests run them in memory, integration tests in the lab."""
