"""Error rates on another corpus, and over degraded channels."""
