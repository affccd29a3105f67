"""The exchange of tokens and the protected records, without I/O."""
