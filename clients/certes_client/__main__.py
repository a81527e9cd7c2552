"""``python -m certes_client``: the command line without the console script."""

from certes_client.cli import main

main()
