"""The live server: one model, many speakers, three protocols."""
