"""The examples of GNU parallel's manual, run by both programs and compared: ``python -m benchmarks examples``."""
