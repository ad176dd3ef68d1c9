"""Audio-language models behind one narrow interface; the only package that depends on transformers."""
