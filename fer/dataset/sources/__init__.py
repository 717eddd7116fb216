"""Where FER2013 comes from: each source yields the same `SourceImage` rows."""
