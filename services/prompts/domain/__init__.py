"""What a prompt is, what it includes, where its labels may point, how versions differ. Pure."""
