"""Drawing of synthetic faces: a relief that facial action units move, lit and turned."""
