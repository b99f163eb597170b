"""Real servers on loopback for the tests and for a laptop, from wheels and jars: no Docker, no root, no password.

A development extra (`services`): what is deployed knows these systems by their addresses only.
"""
