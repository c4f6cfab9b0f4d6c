"""`python -m rws_keras`: the same as the command `rws-keras`."""

from rws_keras.cli import main

main()
