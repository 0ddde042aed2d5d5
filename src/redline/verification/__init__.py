"""Does a candidate still answer as the reference does?"""
