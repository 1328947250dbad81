"""The edge: what stands between the network and a function."""
