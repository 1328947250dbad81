"""`python -m shared.transfer`: the migration command."""

from shared.transfer.actions import transfer

if __name__ == "__main__":
    transfer(prog_name="python -m shared.transfer")
