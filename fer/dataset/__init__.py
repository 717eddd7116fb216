"""FER2013 and its like: sources, the data gate, cleaning, one prepared table."""
