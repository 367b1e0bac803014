"""What a device does not tell of itself, found out with a load that is switched on and off."""
