"""The wheel: built, checked and used outside the checkout."""
