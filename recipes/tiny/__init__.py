"""The embedded model `tiny-en-de`, from text to checkpoint."""
