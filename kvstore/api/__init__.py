"""Which bytes does a caller see? The faces of the one service translate, and decide nothing."""
