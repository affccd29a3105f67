"""Tests against the lab's real domain controller."""
