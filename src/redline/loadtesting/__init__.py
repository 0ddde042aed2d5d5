"""Load a server from outside and compare two of them; knows a server by its address alone."""
