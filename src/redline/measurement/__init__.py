"""How fast, how much memory, under which conditions; over sessions, knowing no runtime."""
