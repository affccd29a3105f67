"""Endpoints that find their service in the directory, and the strings that name them.

Nothing is imported here: Twisted imports the parsers of every plugin package
for every program that names an endpoint.
"""
