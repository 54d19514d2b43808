"""What things are: immutable values (ids, jobs, settings, notices). Pure; imports nothing above."""
