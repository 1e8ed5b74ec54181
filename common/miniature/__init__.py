"""The embedded default: both corpora in miniature, two tiny models, and a Hub for the loopback, all offline."""
