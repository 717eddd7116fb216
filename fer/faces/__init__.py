"""Faces in pictures: detection, crops as FER2013 has them, and what each crop is worth."""
