"""The bundled model `tiny-en-de`: Whisper's encoder, spoken captions, and a decoder trained on them."""
