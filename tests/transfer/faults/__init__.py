"""Whatever happens to a transfer: everything or nothing, the truth about which, and a way on."""
