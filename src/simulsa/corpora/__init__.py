"""Public speech-translation corpora, and synthesised captions, as manifests."""
