"""What becomes of calls, of the pool and of the program when something goes wrong: see run.py."""
