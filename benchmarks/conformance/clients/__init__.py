"""Scripts that environments of their own run: they import nothing of ours but ``cases`` beside them."""
