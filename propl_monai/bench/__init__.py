"""What the speed and memory of this package are measured with: `propl bench`."""
