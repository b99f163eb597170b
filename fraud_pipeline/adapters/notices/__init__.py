"""Telling people: what is to be told, the channels that carry it, and looking at the platform for what to tell."""
