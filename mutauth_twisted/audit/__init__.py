"""The audit trail: who came, who was allowed, and how it ended, one JSON line for each event."""
