"""Support that unit and integration tests share, and nobody else needs."""
