"""Questions about the world of the stories, and their answers."""
