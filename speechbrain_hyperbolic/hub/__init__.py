"""Exported models: their card, their files, the way to the Hub."""
