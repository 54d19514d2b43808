"""``python -m p2pq``: the command line."""

from p2pq.cli.entry import main

if __name__ == "__main__":
    main()
