"""Programs that use one peer each, run by the interpreter that has it: they import nothing of p2pq, and p2pq nothing of them."""
