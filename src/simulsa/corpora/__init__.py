"""Public speech-translation corpora, and captions spoken by a synthesiser, as manifests."""
