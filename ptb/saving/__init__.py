"""What a run leaves on disk: written whole or not at all, verified, and found again."""
