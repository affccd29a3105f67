"""Hostile bytes for everything that reads any, guided by coverage; see README.md."""
