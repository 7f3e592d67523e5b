"""The grammar of the corpus: names and words, shared scenes, and the schemas that put stories together."""
