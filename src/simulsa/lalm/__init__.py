"""Audio-language models behind one narrow interface; the only part of simulsa that knows transformers."""
